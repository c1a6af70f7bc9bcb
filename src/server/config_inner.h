/* What the files of config.h share. */
#ifndef SERVER_CONFIG_INNER_H
#define SERVER_CONFIG_INNER_H

#include "server/config.h"

/* Decimal digits, at most `max`. */
bool config_number(const char *text, int max, int *out);
/* yes, no and the like. */
bool config_flag(const char *text, bool *out);
/* message = "key = 'value' is not wanted"; INVALID. */
godwit_status config_bad(char message[512], const char *key, const char *value, const char *wanted);
/* config_edge.c: limits, proxies. */
godwit_status config_edge(const config_texts *t, config *out, char message[512]) MUST_USE;

#endif
