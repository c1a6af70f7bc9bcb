/* Routes and query strings; beside them the small pure parts of the network side: settings, gzip,
 * answer heads, waiters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "../folder.h"
#include "core/limits.h"
#include "server/config.h"
#include "server/gzip.h"
#include "server/notify.h"
#include "server/reply.h"
#include "server/route.h"
#include "server/watched.h"

static void paths_and_methods(void **state) {
    (void)state;
    static const struct {
        const char *method, *path;
        int status;
        const char *allow;
    } cases[] = {
        {"GET", "/healthz", 200, NULL},
        {"HEAD", "/readyz", 200, NULL},
        {"GET", "/v1/meta", 200, NULL},
        {"POST", "/v1/devices", 200, NULL},
        {"POST", "/v1/sync", 200, NULL},
        {"POST", "/v1/sync/operations", 200, NULL},
        {"GET", "/v1/sync/changes", 200, NULL},
        {"GET", "/v1/sync/snapshot", 200, NULL},
        {"GET", "/v1/sync/events", 200, NULL},
        {"GET", "/v1/conflicts", 200, NULL},
        {"GET", "/v1/audit", 200, NULL},
        {"GET", "/v1/sync", 405, "POST"},
        {"post", "/v1/sync", 405, "POST"},
        {"HEA", "/healthz", 405, "GET, HEAD"},
        {"GET,", "/healthz", 405, "GET, HEAD"},
        {"DELETE", "/v1/meta", 405, "GET"},
        {"GET", "/", 404, NULL},
        {"GET", "", 404, NULL},
        {"GET", "/healthz/", 404, NULL},
        {"GET", "//healthz", 404, NULL},
        {"GET", "/v1/./meta", 404, NULL},
        {"GET", "/v1/%6deta", 404, NULL},
        {"GET", "/V1/meta", 404, NULL},
        {"GET", "/v1/metadata", 404, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const route *r;
        int status = route_find(slice_of(cases[i].method), slice_of(cases[i].path), &r);
        if (status != cases[i].status) {
            fail_msg("%s %s: %d", cases[i].method, cases[i].path, status);
        }
        assert_int_equal(r != NULL, status != 404);
        if (cases[i].allow) {
            assert_string_equal(r->methods, cases[i].allow);
        }
    }
}

static godwit_status query(const char *path, const char *text, service_job *job) {
    const route *r;
    const char *reason = NULL;
    (void)route_find(SLICE("GET"), slice_of(path), &r);
    assert_non_null(r);
    memset(job, 0, sizeof *job);
    arena_init(&job->memory, NULL, 0);
    godwit_status status = route_query(r, slice_of(text), job, &reason);
    assert_int_equal(status == GODWIT_OK, reason == NULL);
    return status;
}

static void queries_are_decoded(void **state) {
    (void)state;
    service_job job;
    assert_int_equal(query("/v1/sync/changes",
                           "scope=a%20b+c&cursor=xyz&device=d&tables=pins,%66orms&limit=5&wait=1",
                           &job),
                     GODWIT_OK);
    assert_true(slice_is(job.q_scope, "a b c"));
    assert_true(slice_is(job.q_cursor, "xyz"));
    assert_true(slice_is(job.q_device, "d"));
    assert_true(slice_is(job.q_tables, "pins,forms"));
    assert_true(slice_is(job.q_limit, "5"));
    assert_true(slice_is(job.q_wait, "1"));
    arena_deinit(&job.memory);
    assert_int_equal(
        query("/v1/audit", "entityType=p&entityId=%5B%221%22%2C%22x%22%5D&scope=s=t", &job),
        GODWIT_OK);
    assert_true(slice_is(job.q_entity_id, "[\"1\",\"x\"]"));
    assert_true(slice_is(job.q_scope, "s=t"));
    arena_deinit(&job.memory);
    assert_int_equal(query("/v1/sync/changes", "", &job), GODWIT_OK);
    arena_deinit(&job.memory);
    assert_int_equal(query("/v1/sync/changes", "scope=%C3%A9", &job), GODWIT_OK);
    assert_true(slice_is(job.q_scope, "\xc3\xa9"));
    arena_deinit(&job.memory);
}

static void queries_that_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "scope=a&scope=b",
        "scope=a&&cursor=b",
        "&scope=a",
        "Scope=a",
        "unknown=1",
        "scope=%",
        "scope=%4",
        "scope=%4g",
        "scope=%zz",
        "scope=%00",
        "scope=%ff",
        "scope=%C3",
        "scope=%ED%A0%80",
        "token=x",
        "entityId=1",
        "scope=a&x",
        "%73cope=a",
        "=a",
        "scope[]=a",
        "limit=123456789012345678901",
        "device=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        service_job job;
        if (query("/v1/sync/changes", texts[i], &job) != GODWIT_INVALID) {
            fail_msg("accepted %s", texts[i]);
        }
        arena_deinit(&job.memory);
    }
}

/* ---- settings ---- */

static const char *no_environment(const char *name) {
    (void)name;
    return NULL;
}

static const char *some_environment(const char *name) {
    return strcmp(name, "GODWIT_DATA") == 0     ? "from-environment"
           : strcmp(name, "GODWIT_LISTEN") == 0 ? "127.0.0.2:2"
           : strcmp(name, "GODWIT_SCHEMA") == 0 ? "" /* as good as absent */
                                                : NULL;
}

static void write_file(char path[300], const char *text) {
    FILE *file = folder_file(path, 300);
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void flags_over_environment_over_file(void **state) {
    (void)state;
    char path[300], message[512];
    config_texts flags = {.listen = "[::1]:0"};
    config out;
    arena memory;
    write_file(path, "; comment\n[server]\nlisten = 1.2.3.4:5\ndata = from-file\n"
                     "schema = s.sql\ndev = yes\nthreads = 3\nlog = debug\n"
                     "[table pins]\nanything = goes\n");
    arena_init(&memory, NULL, 0);
    assert_int_equal(config_load(&memory, &flags, some_environment, path, &out, message),
                     GODWIT_OK);
    assert_string_equal(out.host, "::1");
    assert_string_equal(out.port, "0");
    assert_true(out.loopback);
    assert_string_equal(out.data, "from-environment");
    assert_string_equal(out.schema, "s.sql");
    assert_true(out.dev);
    assert_int_equal(out.threads, 3);
    assert_int_equal(out.level, LOG_DEBUG);
    arena_deinit(&memory);
    unlink(path);
}

static void files_that_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"[server]\nlisten = :1\n", "listen"},
        {"[server]\n\nlissten = 127.0.0.1:1\n", ":3: unknown key 'lissten'"},
        {"listen = 127.0.0.1:1\n", ":1: unknown section ''"},
        {"[client]\nx = 1\n", ":2: unknown section 'client'"},
        {"[server]\ndata = a\ndata = b\n", ":3: repeated key 'data'"},
        {"[server]\nnonsense\n", ":2: "},
        {"[server]\ndev = maybe\n", "dev = 'maybe'"},
        {"[server]\nthreads = 0\n", "threads = '0'"},
        {"[server]\nthreads = 65\n", "threads = '65'"},
        {"[server]\nthreads = -1\n", "threads = '-1'"},
        {"[server]\nlog = loud\n", "log = 'loud'"},
        {"[server]\nlisten = 127.0.0.1:65536\n", "listen"},
        {"[server]\nlisten = ::1:80\n", "listen"},
        {"[server]\nlisten = host\n", "listen"},
        {"[server]\nlisten = host:\n", "listen"},
        {"[server]\nuser_rate = 0\n", "user_rate = '0'"},
        {"[server]\naddress_rate = -1\n", "address_rate = '-1'"},
        {"[server]\ndevice_requests = many\n", "device_requests = 'many'"},
        {"[server]\nmemory = 63\n", "memory = '63'"},
        {"[server]\nproxy_header = x-real-ip\n", "proxy_header = 'x-real-ip'"},
        {"[server]\ntrusted_proxies = 198.0.0.1, proxy\n", "trusted_proxies: 'proxy'"},
        {"[server]\nunlimited = 198.0.0.1/8\n", "unlimited: '198.0.0.1/8'"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char path[300], message[512];
        config_texts flags = {0};
        config out;
        arena memory;
        write_file(path, cases[i].text);
        arena_init(&memory, NULL, 0);
        assert_int_equal(config_load(&memory, &flags, no_environment, path, &out, message),
                         GODWIT_INVALID);
        if (!strstr(message, cases[i].expected)) {
            fail_msg("'%s' gives '%s'", cases[i].text, message);
        }
        arena_deinit(&memory);
        unlink(path);
    }
}

static void defaults_are_loopback(void **state) {
    (void)state;
    char message[512];
    config_texts flags = {0};
    config out;
    arena memory;
    arena_init(&memory, NULL, 0);
    assert_int_equal(config_load(&memory, &flags, NULL, NULL, &out, message), GODWIT_OK);
    assert_string_equal(out.host, "127.0.0.1");
    assert_string_equal(out.port, "8787");
    assert_true(out.loopback && !out.dev && out.threads >= 1);
    assert_int_equal(out.gate.limits[GATE_USER].rate, 1000);
    assert_int_equal(out.gate.limits[GATE_USER].burst, 10000);
    assert_int_equal(out.gate.proxies.count, 0);
    assert_int_equal(out.memory_bytes, 512 << 20);
    flags.user_rate = "off";
    assert_int_equal(config_load(&memory, &flags, NULL, NULL, &out, message), GODWIT_OK);
    assert_int_equal(out.gate.limits[GATE_USER].rate, 0);
    flags.listen = "0.0.0.0:1";
    assert_int_equal(config_load(&memory, &flags, NULL, NULL, &out, message), GODWIT_OK);
    assert_false(out.loopback);
    flags.listen = "127.0.0.1.example.org:1";
    assert_int_equal(config_load(&memory, &flags, NULL, NULL, &out, message), GODWIT_OK);
    assert_false(out.loopback);
    assert_int_equal(config_load(&memory, &flags, NULL, "/nonexistent/godwit.ini", &out, message),
                     GODWIT_NOT_FOUND);
    arena_deinit(&memory);
}

/* ---- gzip ---- */

static void gzip_there_and_back(void **state) {
    (void)state;
    bytes text, packed, plain;
    bytes_init(&text, NULL, 0);
    bytes_init(&packed, NULL, 0);
    bytes_init(&plain, NULL, 0);
    for (int i = 0; i < 30000; i++) {
        bytes_printf(&text, "%d,", i);
    }
    assert_int_equal(gzip_deflate(bytes_view(&text), &packed), GODWIT_OK);
    assert_true(packed.len < text.len / 2);
    assert_int_equal(gzip_inflate(bytes_view(&packed), text.len, &plain), GODWIT_OK);
    assert_true(slice_equal(bytes_view(&plain), bytes_view(&text)));
    bytes_deinit(&plain);
    bytes_init(&plain, NULL, 0);
    assert_int_equal(gzip_inflate(bytes_view(&packed), text.len - 1, &plain), GODWIT_LIMIT);
    assert_int_equal(plain.len, 0);
    for (size_t len = 0; len < packed.len; len += 97) {
        assert_int_equal(gzip_inflate((slice){packed.ptr, len}, text.len, &plain), GODWIT_INVALID);
    }
    packed.ptr[packed.len / 2] ^= 1;
    assert_int_equal(gzip_inflate(bytes_view(&packed), text.len, &plain), GODWIT_INVALID);
    packed.ptr[packed.len / 2] ^= 1;
    bytes_char(&packed, 'x');
    assert_int_equal(gzip_inflate(bytes_view(&packed), text.len, &plain), GODWIT_INVALID);
    assert_int_equal(gzip_inflate(SLICE("not gzip"), 100, &plain), GODWIT_INVALID);
    bytes_deinit(&text);
    bytes_deinit(&packed);
    bytes_deinit(&plain);
}

/* ---- answer heads ---- */

static void answer_heads(void **state) {
    (void)state;
    char date[40];
    reply_date(784111777, date);
    assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT");
    bytes b;
    bytes_init(&b, NULL, 0);
    reply r = {.status = 200, .content_type = "application/json", .body_bytes = 7, .etag = "12"};
    reply_head(&b, &r, date);
    assert_string_equal(b.ptr, "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                               "Content-Type: application/json\r\nContent-Length: 7\r\n"
                               "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                               "ETag: \"12\"\r\n\r\n");
    bytes_clear(&b);
    reply s = {.status = 304, .etag = "\"12\"", .close = true, .has_retry_after = true};
    reply_head(&b, &s, date);
    assert_null(strstr(b.ptr, "Content-Length"));
    assert_non_null(strstr(b.ptr, "ETag: \"12\"\r\n"));
    assert_non_null(strstr(b.ptr, "Retry-After: 0\r\n"));
    assert_non_null(strstr(b.ptr, "Connection: close\r\n\r\n"));
    bytes_deinit(&b);
}

/* ---- waiters ---- */

/* Names that are waited for at this server, and what is known of them. */
static void scopes_that_are_watched(void **state) {
    (void)state;
    watched *w;
    watched_list list;
    arena a;
    arena_init(&a, NULL, 0);
    assert_int_equal(watched_open(&w), GODWIT_OK);
    assert_false(watched_news(w, SLICE("a"), 5)); /* nobody waits */
    watched_add(w, SLICE("a"));
    watched_add(w, SLICE("a"));
    watched_add(w, SLICE("b"));
    assert_true(watched_news(w, SLICE("a"), 5));
    assert_false(watched_news(w, SLICE("a"), 5));
    assert_true(watched_news(w, SLICE("a"), 4)); /* the database lost something */
    assert_false(watched_mark(w, SLICE("c")));
    assert_true(watched_mark(w, SLICE("a")));
    assert_true(watched_mark(w, SLICE("a")));
    assert_int_equal(watched_take(w, false, &a, &list), GODWIT_OK);
    assert_int_equal(list.count, 1);
    assert_true(slice_is(list.scopes[0], "a") && list.heads[0] == 4);
    assert_int_equal(watched_take(w, false, &a, &list), GODWIT_OK);
    assert_int_equal(list.count, 0);
    assert_true(watched_mark(w, SLICE(""))); /* each of them */
    watched_remove(w, SLICE("b"));
    assert_int_equal(watched_take(w, false, &a, &list), GODWIT_OK);
    assert_int_equal(list.count, 1);
    watched_remove(w, SLICE("a"));
    assert_int_equal(watched_take(w, true, &a, &list), GODWIT_OK);
    assert_int_equal(list.count, 1); /* one still waits */
    watched_remove(w, SLICE("a"));
    watched_remove(w, SLICE("a"));
    assert_int_equal(watched_take(w, true, &a, &list), GODWIT_OK);
    assert_int_equal(list.count, 0);
    assert_false(watched_mark(w, SLICE("")));
    watched_close(w);
    arena_deinit(&a);
}

static notify_table waiting;
static int woken[3];
static waiter waiters[3];

static void on_wake(waiter *w, int64_t head) {
    woken[w - waiters] = (int)head;
    notify_remove(&waiting, w);
}

static void waiters_hear_their_scope(void **state) {
    (void)state;
    notify_init(&waiting);
    for (size_t i = 0; i < 3; i++) {
        waiters[i].wake = on_wake;
        notify_add(&waiting, &waiters[i], i < 2 ? SLICE("a") : SLICE("b"), i == 1 ? 9 : 0);
    }
    notify_wake(&waiting, SLICE("a"), 5);
    assert_int_equal(woken[0], 5);
    assert_int_equal(woken[1], 0); /* knew of 9 already */
    assert_int_equal(woken[2], 0);
    notify_wake(&waiting, SLICE("c"), 50);
    notify_wake(&waiting, SLICE("a"), 10);
    assert_int_equal(woken[1], 10);
    assert_int_equal(waiting.count, 1);
    notify_remove(&waiting, &waiters[0]); /* not in it any more */
    notify_remove(&waiting, &waiters[2]);
    assert_int_equal(waiting.count, 0);
    notify_wake(&waiting, SLICE("b"), 1);
    assert_int_equal(woken[2], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_and_methods),
        cmocka_unit_test(queries_are_decoded),
        cmocka_unit_test(queries_that_are_refused),
        cmocka_unit_test(flags_over_environment_over_file),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(defaults_are_loopback),
        cmocka_unit_test(gzip_there_and_back),
        cmocka_unit_test(answer_heads),
        cmocka_unit_test(waiters_hear_their_scope),
        cmocka_unit_test(scopes_that_are_watched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
