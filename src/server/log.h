/* The daemon's log: one logfmt line per event on stderr. Threads: any.
 *
 *   ts=2026-01-02T03:04:05.678Z level=info event=started url=http://127.0.0.1:8787
 *
 * Values are names, numbers and constant reasons; never a payload, a token or a value of a row. */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include "core/base.h"

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } log_level;

/* Once, before other threads start. */
void log_set_level(log_level level);
bool log_enabled(log_level level);
bool log_level_parse(slice name, log_level *out); /* debug info warn error off */

/* format gives "key=value key=value"; text values go through LOG_TEXT, which quotes and escapes
 * where needed. */
void log_event(log_level level, const char *event, const char *format, ...) PRINTF_LIKE(3, 4);
/* At most LOG_BURST lines a second of what clients can cause; the rest is counted and reported. */
void log_limited(log_level level, const char *event, const char *format, ...) PRINTF_LIKE(3, 4);
#define LOG_BURST 50

/* Writes `text` as a logfmt value into a buffer of 256 bytes, cut when longer. */
const char *log_value(slice text, char buffer[256]);

#endif
