/* A device's registration, its table declaration included: what is accepted is a schema whose text
 * form reads back as the same schema. */
#include "fuzz.h"

#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    arena a;
    arena_init(&a, NULL, 0);
    register_request r;
    wire_error error = {0};
    godwit_status status = wire_register_parse(&a, fuzz_slice(data, size), &r, &error);
    if (status == GODWIT_OK && r.tables) {
        schema tables;
        const char *reason = NULL;
        if (schema_from_json(&a, r.tables, &tables, &reason) == GODWIT_OK) {
            bytes text;
            bytes_init(&text, NULL, 0);
            wire_register_write(&text, &r, &tables);
            FUZZ_CHECK(!text.failed);
            register_request again;
            FUZZ_CHECK(wire_register_parse(&a, bytes_view(&text), &again, &error) == GODWIT_OK);
            FUZZ_CHECK(slice_equal(again.device_id, r.device_id));
            FUZZ_CHECK(again.scope_count == r.scope_count);
            bytes_deinit(&text);
        }
    } else if (status != GODWIT_OK && status != GODWIT_NOMEM) {
        FUZZ_CHECK(error.http >= 400 && error.http < 500 && error.type && error.detail[0]);
    }
    arena_deinit(&a);
    return 0;
}
