/* Formats a line into one buffer and writes it with one call, so that lines of threads do not mix.
 */
#include "server/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/wire.h"

static _Atomic int threshold = LOG_INFO;
static _Atomic int64_t burst_second;
static _Atomic int burst_lines;
static _Atomic int64_t suppressed;

static const char *const names[] = {"debug", "info", "warn", "error", "off"};

void log_set_level(log_level level) {
    atomic_store(&threshold, (int)level);
}

bool log_enabled(log_level level) {
    return (int)level >= atomic_load(&threshold);
}

bool log_level_parse(slice name, log_level *out) {
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (slice_is(name, names[i])) {
            *out = (log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_value(slice text, char buffer[256]) {
    static const char hex[] = "0123456789abcdef";
    bool plain = text.len > 0;
    for (size_t i = 0; i < text.len && plain; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        plain = c > 0x20 && c < 0x7f && c != '"' && c != '=' && c != '\\';
    }
    size_t n = 0;
    if (!plain) {
        buffer[n++] = '"';
    }
    for (size_t i = 0; i < text.len && n < 248; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == '"' || c == '\\') {
            buffer[n++] = '\\';
            buffer[n++] = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            buffer[n++] = '\\';
            buffer[n++] = 'x';
            buffer[n++] = hex[c >> 4];
            buffer[n++] = hex[c & 15];
        } else {
            buffer[n++] = (char)c;
        }
    }
    if (!plain) {
        buffer[n++] = '"';
    }
    buffer[n] = 0;
    return buffer;
}

static int64_t wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void write_line(log_level level, const char *event, const char *format, va_list args)
    PRINTF_LIKE(3, 0);

static void write_line(log_level level, const char *event, const char *format, va_list args) {
    char line[2048], time_text[32];
    wire_time_write(wall_ms(), time_text);
    int head =
        snprintf(line, sizeof line, "ts=%s level=%s event=%s ", time_text, names[level], event);
    size_t len = head > 0 ? (size_t)head : 0;
    int rest = vsnprintf(line + len, sizeof line - len - 1, format, args);
    if (rest > 0) {
        len += (size_t)rest;
    }
    len = len > sizeof line - 2 ? sizeof line - 2 : len;
    while (len > 0 && line[len - 1] == ' ') {
        len--;
    }
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* a log that cannot be written must not stop the service */
}

void log_event(log_level level, const char *event, const char *format, ...) {
    if (!log_enabled(level)) {
        return;
    }
    va_list args;
    va_start(args, format);
    write_line(level, event, format, args);
    va_end(args);
}

/* Two threads may both see the second change: a few lines too many, none wrong. */
static bool within_burst(void) {
    int64_t second = wall_ms() / 1000;
    if (atomic_exchange(&burst_second, second) != second) {
        atomic_store(&burst_lines, 0);
        int64_t lost = atomic_exchange(&suppressed, 0);
        if (lost > 0) {
            log_event(LOG_WARN, "log_suppressed", "lines=%lld", (long long)lost);
        }
    }
    if (atomic_fetch_add(&burst_lines, 1) < LOG_BURST) {
        return true;
    }
    atomic_fetch_add(&suppressed, 1);
    return false;
}

void log_limited(log_level level, const char *event, const char *format, ...) {
    if (!log_enabled(level) || !within_burst()) {
        return;
    }
    va_list args;
    va_start(args, format);
    write_line(level, event, format, args);
    va_end(args);
}
