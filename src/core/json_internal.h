/* What the files of the JSON module share; nobody else includes this. */
#ifndef CORE_JSON_INTERNAL_H
#define CORE_JSON_INTERNAL_H

#include "core/json.h"

/* First byte at or after `at` that is not a plain ASCII character of a string: a quote, a
 * backslash, a control character, a byte of 0x80 and above; or `end`. */
const char *json_plain_end(const char *at, const char *end);
/* Bytes of the UTF-8 sequence at `at`, 0 when it is not a valid one. at < end. */
size_t json_utf8_length(const char *at, const char *end);
/* Decodes the escapes of a string's inside into the arena. NULL, or the reason why not (out of
 * memory: the arena has failed). *out may be `raw` itself. */
const char *json_unescape(arena *a, slice raw, slice *out);
/* Reads a number at *at into n (INT or REAL) and moves *at behind it. NULL, or the reason why not.
 */
const char *json_number_parse(const char **at, const char *end, json *n);

#endif
