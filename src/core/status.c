/* Names, texts and classes of the public status codes, all from the one table in godwit/status.h.
 *
 * Unknown numbers (a newer library's) answer "UNKNOWN" and count as MISUSE. */
#include "godwit/godwit.h"

const char *godwit_status_name(godwit_status status) {
    switch (status) {
#define STATUS_NAME(name, number, cls, text)                                                       \
    case GODWIT_##name:                                                                            \
        return #name;
        GODWIT_STATUS_TABLE(STATUS_NAME)
#undef STATUS_NAME
    }
    return "UNKNOWN";
}

const char *godwit_status_text(godwit_status status) {
    switch (status) {
#define STATUS_TEXT(name, number, cls, text)                                                       \
    case GODWIT_##name:                                                                            \
        return text;
        GODWIT_STATUS_TABLE(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

godwit_class godwit_status_class(godwit_status status) {
    switch (status) {
#define STATUS_CLASS(name, number, cls, text)                                                      \
    case GODWIT_##name:                                                                            \
        return GODWIT_CLASS_##cls;
        GODWIT_STATUS_TABLE(STATUS_CLASS)
#undef STATUS_CLASS
    }
    return GODWIT_CLASS_MISUSE;
}
