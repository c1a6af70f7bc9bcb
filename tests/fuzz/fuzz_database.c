/* A device's database that is damaged: bytes of a good file are changed at places the input names
 * (offset u32, byte; again and again), and the library is used over it. Calls may fail, nothing
 * else. */
#include "fuzz.h"

#include <sqlite3.h>

#include "godwit/godwit.h"

static unsigned char *GOOD;
static sqlite3_int64 GOOD_BYTES;

static godwit *attach(sqlite3 *db) {
    godwit_options options = {.accept_weak_durability = 1};
    godwit *g = NULL;
    return godwit_attach(db, &options, &g) == GODWIT_OK ? g : NULL;
}

static void run(sqlite3 *db, const char *sql) {
    (void)sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void make_good(void) {
    sqlite3 *db = NULL;
    FUZZ_CHECK(sqlite3_open(":memory:", &db) == SQLITE_OK);
    run(db,
        "PRAGMA page_size = 1024; CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, n INTEGER);"
        "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body BLOB);");
    godwit *g = attach(db);
    FUZZ_CHECK(g);
    godwit_settings settings = {.url = "http://127.0.0.1:1", .scope = "field", .token = "t"};
    FUZZ_CHECK(godwit_init(g, &settings) == GODWIT_OK);
    FUZZ_CHECK(godwit_track(g, "pins", NULL) == GODWIT_OK);
    FUZZ_CHECK(godwit_track(g, "forms", NULL) == GODWIT_OK);
    run(db,
        "INSERT INTO pins VALUES('a','one',1),('b','two',2); UPDATE pins SET n = 3 WHERE id = 'a';"
        "INSERT INTO forms VALUES('f','a',x'0011'); DELETE FROM pins WHERE id = 'b';");
    const char *request = NULL;
    FUZZ_CHECK(godwit_next(g, &request) == GODWIT_OK && request); /* seals */
    run(db, "UPDATE pins SET title = 'later' WHERE id = 'a'");
    godwit_close(g);
    GOOD = sqlite3_serialize(db, "main", &GOOD_BYTES, 0);
    FUZZ_CHECK(GOOD);
    sqlite3_close(db);
}

static const char ANSWER[] =
    "{\"results\":[],\"appliedSeq\":0,\"head\":3,\"serverTime\":\"2026-01-02T03:04:05.678Z\","
    "\"changes\":"
    "{\"commits\":[{\"seq\":1,\"salt\":\"00000000000000aa\",\"at\":\"2026-01-02T03:04:05.678Z\","
    "\"author\":"
    "{\"deviceId\":\"other\",\"userId\":\"ana\"},\"changes\":[{\"entityType\":\"pins\","
    "\"entityId\":\"a\","
    "\"kind\":\"upsert\",\"columns\":{\"title\":\"theirs\",\"n\":1},\"full\":true,\"vectorClock\":"
    "{\"other\":1}}]}],\"cursor\":\"Y3Vyc29y\",\"head\":3,\"more\":false}}";

static void use(sqlite3 *db) {
    godwit *g = attach(db);
    if (!g) {
        return;
    }
    godwit_metrics metrics;
    int64_t findings = 0;
    (void)godwit_get_metrics(g, &metrics);
    run(db, "INSERT INTO pins VALUES('c','three',3); UPDATE pins SET n = 9");
    run(db, "SELECT * FROM sync_queue; SELECT * FROM godwit_conflicts; SELECT * FROM "
            "godwit_row_status");
    (void)godwit_doctor(g, 1, NULL, NULL, &findings);
    for (int64_t i = 1; i <= 3; i++) {
        const char *request = NULL;
        if (godwit_next(g, &request) == GODWIT_OK && request) {
            const char *id = strstr(request, "\"id\":");
            (void)godwit_feed(g, id ? strtoll(id + 5, NULL, 10) : i, 200,
                              "{\"content-type\":\"application/json\"}", ANSWER, strlen(ANSWER));
        }
    }
    char new_id[37];
    (void)godwit_retry(g, "x", new_id);
    (void)godwit_track(g, "pins", NULL);
    godwit_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!GOOD) {
        make_good();
    }
    unsigned char *copy = sqlite3_malloc64((sqlite3_uint64)GOOD_BYTES);
    FUZZ_CHECK(copy);
    memcpy(copy, GOOD, (size_t)GOOD_BYTES);
    while (size >= 5) {
        uint32_t at = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
        copy[at % (uint32_t)GOOD_BYTES] ^= data[4];
        data += 5;
        size -= 5;
    }
    sqlite3 *db = NULL;
    FUZZ_CHECK(sqlite3_open(":memory:", &db) == SQLITE_OK);
    if (sqlite3_deserialize(db, "main", copy, GOOD_BYTES, GOOD_BYTES,
                            SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE) ==
        SQLITE_OK) {
        use(db);
    }
    FUZZ_CHECK(sqlite3_close(db) == SQLITE_OK); /* nothing of ours is left open */
    return 0;
}
