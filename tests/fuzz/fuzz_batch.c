/* Whole batches against the real service over a real store: two devices push groups made from the
 * input, with real keys, and requests without stream fields, with anything in their values. Never a
 * 5xx, never a part of a group, one result for each operation; a push sent again answers what it
 * answered. */
#include "fuzz.h"

#include "../unit/service_kit.h"

static kit K;
static kit_device DEVICES[2];
static unsigned long RUN;

static const char *const ENTITIES[] = {"pins",  "forms",   "counts", "pins",
                                       "forms", "nothing", "\"",     ""};
static const char *const IDS[] = {"a", "b",        "c",  "1", "-9223372036854775808",
                                  "",  "\xc3\xa9", "a b"};
static const char *const VALUES[] = {"null",
                                     "\"x\"",
                                     "1",
                                     "1.5",
                                     "true",
                                     "{\"$i64\":\"9007199254740993\"}",
                                     "{\"$b64\":\"AAE=\"}",
                                     "{\"$b64\":\"!\"}",
                                     "[]",
                                     "{}",
                                     "\"a\"",
                                     "999",
                                     "1000",
                                     "\"nowhere\"",
                                     "-0.0",
                                     "1e308"};
static const char *const COLUMNS[] = {"note",   "lat",  "n", "slug", "kind",
                                      "pin_id", "body", "v", "id",   "_x"};

static unsigned pick(const uint8_t **data, size_t *size, unsigned count) {
    return fuzz_byte(data, size) % count;
}

/* title names the run, the group and the operation, so that a part of a group can be found. */
static const char *payload(const uint8_t **data, size_t *size, const char *title) {
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    bool first = true;
    if (title) {
        json_key(&b, &first, "title");
        json_write_text(&b, slice_of(title));
    }
    unsigned used = 0;
    for (unsigned left = pick(data, size, 4); left > 0; left--) {
        unsigned column = pick(data, size, COUNT_OF(COLUMNS));
        if (!(used & 1U << column)) {
            used |= 1U << column;
            json_key(&b, &first, COLUMNS[column]);
            bytes_text(&b, VALUES[pick(data, size, COUNT_OF(VALUES))]);
        }
    }
    bytes_char(&b, '}');
    slice text = arena_copy(&K.a, bytes_view(&b));
    bytes_deinit(&b);
    return text.ptr;
}

static bool is_refused(const kit_answer *answer, size_t i) {
    char path[64];
    (void)snprintf(path, sizeof path, "results.%zu.status", i);
    slice status = kit_text(answer, path);
    FUZZ_CHECK(slice_is(status, "success") || slice_is(status, "already_processed") ||
               slice_is(status, "conflict") || slice_is(status, "error") ||
               slice_is(status, "deferred"));
    (void)snprintf(path, sizeof path, "results.%zu.outcome", i);
    slice outcome = kit_text(answer, path);
    FUZZ_CHECK(!slice_is(status, "error") || slice_is(outcome, "rejected"));
    return slice_is(outcome, "rejected");
}

static void check_answer(const kit_answer *answer, size_t count) {
    FUZZ_CHECK(answer->status < 500);
    FUZZ_CHECK(answer->status != 200 || kit_count(answer, "results") == count);
}

static void check_groups(const kit_answer *answer, const wire_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t first = (size_t)(ops[i].group_first - ops[0].seq);
        FUZZ_CHECK(is_refused(answer, i) == is_refused(answer, first));
        if (is_refused(answer, i)) {
            const char *sql =
                arena_printf(&K.a, "SELECT count(*) FROM pins WHERE title = 't%lu-%zu'", RUN, i);
            FUZZ_CHECK(strcmp(kit_sql(&K, sql), "0") == 0);
        }
    }
}

static void push_stream(const uint8_t **data, size_t *size) {
    kit_device *d = &DEVICES[pick(data, size, 2)];
    int64_t seq = d->seq;
    wire_op ops[12];
    size_t count = 0;
    while (count < COUNT_OF(ops) && *size > 0) {
        size_t group = 1 + pick(data, size, 4), from = count;
        while (count < from + group && count < COUNT_OF(ops)) {
            const char *title = arena_printf(&K.a, "t%lu-%zu", RUN, count);
            op_kind kind =
                (op_kind[]){OP_CREATE, OP_UPDATE, OP_DELETE, OP_CREATE}[pick(data, size, 4)];
            const char *entity = ENTITIES[pick(data, size, 5)];
            const char *id = IDS[pick(data, size, COUNT_OF(IDS))];
            bool titled = strcmp(entity, "pins") == 0;
            const char *text =
                kind == OP_DELETE ? "{}" : payload(data, size, titled ? title : NULL);
            ops[count] = kit_op(&K, d, kind, entity, id, text);
            if (pick(data, size, 4) == 0) {
                ops[count].base_seq = pick(data, size, 64);
                ops[count].base_salt = pick(data, size, 3);
            }
            if (kind != OP_CREATE && pick(data, size, 3) == 0) {
                ops[count].base = slice_of(payload(data, size, NULL));
            }
            count++;
        }
        kit_group(&ops[from], count - from);
    }
    if (count == 0) {
        return;
    }
    uint8_t before[SHA256_BYTES];
    memcpy(before, d->last_key, sizeof before);
    kit_answer answer = kit_push(&K, d, ops, count);
    check_answer(&answer, count);
    if (answer.status != 200) {
        d->seq = seq; /* refused as a whole: nothing of it counts */
        return;
    }
    check_groups(&answer, ops, count);
    slice again_body =
        kit_push_body(&K, d, ops, count, ops[0].seq > 1 ? before : NULL, (slice){0}, false);
    kit_answer again = kit_body(&K, VERB_PUSH, d->user, d->scope, again_body);
    check_answer(&again, count);
    FUZZ_CHECK(again.status == 200);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(is_refused(&again, i) == is_refused(&answer, i));
    }
}

static void push_plain(const uint8_t **data, size_t *size) {
    static const char *const KINDS[] = {"create", "update", "delete", "upsert"};
    bool atomic = pick(data, size, 2);
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_printf(&b, "{\"deviceId\":\"plain\",\"atomic\":%s,\"operations\":[",
                 atomic ? "true" : "false");
    size_t count = 0;
    for (; count < 8 && *size > 0; count++) {
        bytes_printf(&b, "%s{\"id\":\"%zu\",\"operation\":\"%s\",\"entityType\":", count ? "," : "",
                     count, KINDS[pick(data, size, COUNT_OF(KINDS))]);
        json_write_text(&b, slice_of(ENTITIES[pick(data, size, COUNT_OF(ENTITIES))]));
        bytes_text(&b, ",\"entityId\":");
        json_write_text(&b, slice_of(IDS[pick(data, size, COUNT_OF(IDS))]));
        bytes_printf(&b, ",\"idempotencyKey\":\"k%u\",\"payload\":", fuzz_byte(data, size));
        bytes_text(&b, pick(data, size, 5) ? payload(data, size, NULL)
                                           : VALUES[pick(data, size, COUNT_OF(VALUES))]);
        bytes_char(&b, '}');
    }
    bytes_text(&b, "]}");
    slice body = arena_copy(&K.a, bytes_view(&b));
    bytes_deinit(&b);
    kit_answer answer = kit_body(&K, VERB_PUSH, "ana", "field", body);
    check_answer(&answer, count);
    if (answer.status == 200 && atomic) {
        for (size_t i = 1; i < count; i++) {
            FUZZ_CHECK(is_refused(&answer, i) == is_refused(&answer, 0));
        }
    }
}

/* The input as a body, cut and changed at one place: what a broken client or a proxy makes of one.
 */
static void push_damaged(const uint8_t **data, size_t *size) {
    kit_device *d = &DEVICES[0];
    int64_t seq = d->seq, lsn = d->lsn;
    wire_op ops[2] = {kit_op(&K, d, OP_CREATE, "pins", "z", "{\"title\":\"z\"}"),
                      kit_op(&K, d, OP_UPDATE, "pins", "z", "{\"note\":\"y\"}")};
    kit_group(ops, 2);
    kit_seal(d, &ops[0]);
    kit_seal(d, &ops[1]);
    slice body = kit_push_body(&K, d, ops, 2, seq ? d->last_key : NULL, (slice){0}, false);
    char *text = arena_array(&K.a, body.len, 1);
    FUZZ_CHECK(text && body.len > 0);
    memcpy(text, body.ptr, body.len);
    size_t at = (fuzz_byte(data, size) << 8 | fuzz_byte(data, size)) % body.len;
    size_t length = *size < body.len - at ? *size : body.len - at;
    memcpy(text + at, *data, length);
    kit_answer answer = kit_body(&K, VERB_PUSH, d->user, d->scope, (slice){text, body.len});
    FUZZ_CHECK(answer.status < 500);
    if (answer.status == 200) {
        memcpy(d->last_key, ops[1].key, SHA256_BYTES); /* what was changed was no part of a key */
    } else {
        d->seq = seq;
        d->lsn = lsn;
    }
}

static void start(void) {
    kit_init(&K, KIT_PINS, NULL);
    DEVICES[0] = kit_register(&K, "one", "ana", "field");
    DEVICES[1] = kit_register(&K, "two", "ben", "field");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (RUN % 256 == 0) { /* a new store now and then: a finding is replayed from few inputs */
        if (K.s) {
            kit_deinit(&K);
        }
        start();
    }
    RUN++;
    unsigned kind = fuzz_byte(&data, &size) % 4;
    if (kind == 0) {
        push_plain(&data, &size);
    } else if (kind == 1) {
        push_damaged(&data, &size);
    } else {
        push_stream(&data, &size);
    }
    return 0;
}
