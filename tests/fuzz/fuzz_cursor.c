/* Cursors come back from clients: there is one text for one cursor, so a text that is accepted is
 * the one that is written for what it says. */
#include "fuzz.h"

#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    arena a;
    arena_init(&a, NULL, 0);
    wire_cursor c;
    slice text = fuzz_slice(data, size);
    if (wire_cursor_parse(&a, text, &c) == GODWIT_OK) {
        bytes again;
        bytes_init(&again, NULL, 0);
        wire_cursor_write(&again, &c);
        FUZZ_CHECK(slice_equal(bytes_view(&again), text));
        bytes_deinit(&again);
    }
    int64_t ms;
    if (wire_time_parse(text, &ms)) {
        char written[32];
        int64_t again_ms;
        wire_time_write(ms, written);
        FUZZ_CHECK(wire_time_parse(slice_of(written), &again_ms) && again_ms == ms);
    }
    int64_t number;
    if (wire_u64_parse(text, &number)) {
        char written[17];
        wire_u64_write(number, written);
        FUZZ_CHECK(slice_equal(slice_of(written), text));
    }
    arena_deinit(&a);
    return 0;
}
