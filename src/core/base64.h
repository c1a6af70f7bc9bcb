/* base64 (RFC 4648), strict in reading: one value has one text. The standard alphabet is padded and
 * used for blobs on the wire; the URL alphabet is not padded and used for cursors and tokens. */
#ifndef CORE_BASE64_H
#define CORE_BASE64_H

#include "core/bytes.h"

/* Appends the text of `data`. */
void base64_encode(bytes *b, slice data);
void base64url_encode(bytes *b, slice data);

/* Upper bound of what `text_len` characters decode to. */
#define BASE64_DECODED_MAX(text_len) ((text_len) / 4 * 3 + 2)

/* Decodes into `out`, which has room for BASE64_DECODED_MAX(text.len) bytes. false: a character of
 * another alphabet, wrong padding, or bits set that no encoder sets; *out_len is then untouched. */
bool base64_decode(slice text, uint8_t *out, size_t *out_len) MUST_USE;
bool base64url_decode(slice text, uint8_t *out, size_t *out_len) MUST_USE;

#endif
