/* base64 in both alphabets. Both directions work on whole groups of three bytes and four digits;
 * what is left at the end is the only place where the two forms differ. */
#include "core/base64.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(bytes *b, slice data, const char *digits, bool padded) {
    if (data.len > SIZE_MAX / 2 || !bytes_reserve(b, (data.len + 2) / 3 * 4)) {
        b->failed = true;
        return;
    }
    char *out = b->ptr + b->len;
    for (size_t i = 0; i < data.len; i += 3) {
        size_t left = data.len - i;
        uint32_t v = (uint32_t)(uint8_t)data.ptr[i] << 16;
        v |= left > 1 ? (uint32_t)(uint8_t)data.ptr[i + 1] << 8 : 0;
        v |= left > 2 ? (uint32_t)(uint8_t)data.ptr[i + 2] : 0;
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        if (left > 1 || padded) {
            *out++ = left > 1 ? digits[v >> 6 & 63] : '=';
        }
        if (left > 2 || padded) {
            *out++ = left > 2 ? digits[v & 63] : '=';
        }
    }
    *out = '\0';
    b->len = (size_t)(out - b->ptr);
}

void base64_encode(bytes *b, slice data) {
    encode(b, data, standard, true);
}

void base64url_encode(bytes *b, slice data) {
    encode(b, data, url, false);
}

static int digit_of(char c, const char *digits) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == digits[62] ? 62 : c == digits[63] ? 63 : -1;
}

/* text: digits alone. */
static bool decode(slice text, const char *digits, uint8_t *out, size_t *out_len) {
    uint32_t v = 0;
    size_t written = 0;
    for (size_t i = 0; i < text.len; i++) {
        int d = digit_of(text.ptr[i], digits);
        if (d < 0) {
            return false;
        }
        v = v << 6 | (uint32_t)d;
        if (i % 4 == 3) {
            out[written++] = (uint8_t)(v >> 16);
            out[written++] = (uint8_t)(v >> 8);
            out[written++] = (uint8_t)v;
            v = 0;
        }
    }
    /* The bits left over must be zero, or two texts would mean one value. */
    switch (text.len % 4) {
    case 1:
        return false;
    case 2:
        if (v & 15) {
            return false;
        }
        out[written++] = (uint8_t)(v >> 4);
        break;
    case 3:
        if (v & 3) {
            return false;
        }
        out[written++] = (uint8_t)(v >> 10);
        out[written++] = (uint8_t)(v >> 2);
        break;
    default:
        break;
    }
    *out_len = written;
    return true;
}

bool base64_decode(slice text, uint8_t *out, size_t *out_len) {
    if (text.len % 4 != 0) {
        return false;
    }
    for (int pad = 0; pad < 2 && text.len > 0 && text.ptr[text.len - 1] == '='; pad++) {
        text.len--;
    }
    return decode(text, standard, out, out_len);
}

bool base64url_decode(slice text, uint8_t *out, size_t *out_len) {
    return decode(text, url, out, out_len);
}
