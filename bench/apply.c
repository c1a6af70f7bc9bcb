/* What applying others' changes costs: pages of the feed are parsed and settled into an application
 * database, against a plain insert of the same rows in as many transactions.
 *
 * Arguments: DIRECTORY REPETITIONS ROWS */
#include "client/client.h"
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE_ROWS 1000

static void write_text_member(bytes *b, const char *name, const char *text) {
    bytes_printf(b, ",\"%s\":", name);
    json_write_text(b, slice_of(text));
}

static void write_change(bytes *b, const bench_row *row, int64_t seq) {
    bytes_text(b, "{\"entityType\":\"pins\",\"entityId\":");
    json_write_text(b, slice_of(row->id));
    bytes_text(b, ",\"kind\":\"upsert\",\"full\":true,\"columns\":{\"id\":");
    json_write_text(b, slice_of(row->id));
    write_text_member(b, "title", row->title);
    write_text_member(b, "note", row->note);
    bytes_text(b, ",\"lat\":");
    json_write_real(b, row->lat);
    bytes_text(b, ",\"lng\":");
    json_write_real(b, row->lng);
    write_text_member(b, "status", row->status);
    write_text_member(b, "updated_at", row->updated_at);
    bytes_printf(b, "},\"vectorClock\":{\"$\":0,\"0123456789abcdef0123456789abcdef\":%lld}}",
                 (long long)seq);
}

/* A page of PAGE_ROWS changes in commits of `per`, after commit `seq`; the cursor behind it. */
static int64_t page_write(bytes *b, bytes *cursor, const bench_row *rows, int64_t seq, int64_t per,
                          bool more) {
    bytes_clear(b);
    bytes_text(b, "{\"commits\":[");
    for (int64_t at = 0; at < PAGE_ROWS; at += per) {
        seq++;
        bytes_printf(
            b,
            "%s{\"seq\":%lld,\"salt\":\"00000000000000aa\",\"at\":\"2026-01-02T03:04:05.678Z\","
            "\"author\":{\"deviceId\":\"0123456789abcdef0123456789abcdef\",\"userId\":\"ana\"},"
            "\"changes\":[",
            at ? "," : "", (long long)seq);
        for (int64_t i = 0; i < per; i++) {
            bytes_text(b, i ? "," : "");
            write_change(b, &rows[at + i], seq);
        }
        bytes_text(b, "]}");
    }
    wire_cursor next = {.seq = seq, .salt = 0xaa, .scope = SLICE("s")};
    bytes_clear(cursor);
    wire_cursor_write(cursor, &next);
    bytes_printf(b, "],\"cursor\":\"%s\",\"head\":%lld,\"more\":%s}", cursor->ptr,
                 (long long)(seq + more), more ? "true" : "false");
    return seq;
}

static godwit *open_client(const char *path) {
    godwit *g = NULL;
    bench_remove(path);
    godwit_settings settings = {.url = "http://127.0.0.1:9", .scope = "s", .token = "t"};
    if (godwit_open(path, NULL, &g) != GODWIT_OK) {
        bench_die("open", godwit_message(g));
    }
    bench_exec(godwit_connection(g), BENCH_TABLE);
    if (godwit_init(g, &settings) != GODWIT_OK || godwit_track(g, "pins", NULL) != GODWIT_OK ||
        client_registry_refresh(g) != GODWIT_OK) {
        bench_die("track", godwit_message(g));
    }
    return g;
}

static void apply(const char *path, const char *name, const bench_row *rows, int64_t count,
                  int64_t per) {
    godwit *g = open_client(path);
    bytes page, cursor, before;
    arena memory;
    double parsing = 0, total = 0;
    int64_t seq = 0;
    settle_counts counts = {0};
    arena_init(&memory, NULL, 0);
    bytes_init(&page, NULL, 0);
    bytes_init(&cursor, NULL, 0);
    bytes_init(&before, NULL, 0);
    for (int64_t at = 0; at < count; at += PAGE_ROWS) {
        bytes_clear(&before);
        bytes_slice(&before, bytes_view(&cursor));
        seq = page_write(&page, &cursor, rows + at, seq, per, at + PAGE_ROWS < count);
        pull_answer answer;
        double start = bench_cpu();
        arena_reset(&memory);
        if (wire_pull_answer_parse(&memory, bytes_view(&page), &answer) != GODWIT_OK) {
            bench_die("parse", page.ptr);
        }
        double middle = bench_cpu();
        if (settle_pull(g, SLICE("s"), bytes_view(&before), &answer, &counts) != GODWIT_OK) {
            bench_die("settle", godwit_message(g));
        }
        double end = bench_cpu();
        parsing += middle - start;
        total += end - start;
    }
    if (bench_int(godwit_connection(g), "SELECT count(*) FROM pins") != count) {
        bench_die("apply", "rows are missing");
    }
    char metric[64];
    snprintf(metric, sizeof metric, "apply %s", name);
    bench_sample(metric, "godwit", total);
    snprintf(metric, sizeof metric, "apply parse %s", name);
    bench_sample(metric, "godwit", parsing);
    bytes_deinit(&page);
    bytes_deinit(&cursor);
    bytes_deinit(&before);
    arena_deinit(&memory);
    godwit_close(g);
    bench_remove(path);
}

static void plain(const char *path, const bench_row *rows, int64_t count) {
    bench_remove(path);
    sqlite3 *target = bench_open(path);
    bench_exec(target, BENCH_TABLE);
    sqlite3_stmt *insert =
        bench_prepare(target, "INSERT INTO pins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    double start = bench_cpu();
    for (int64_t at = 0; at < count; at += PAGE_ROWS) {
        bench_exec(target, "BEGIN IMMEDIATE");
        for (int64_t i = at; i < at + PAGE_ROWS; i++) {
            bench_row_bind(insert, &rows[i]);
            bench_step_done(target, insert);
        }
        bench_exec(target, "COMMIT");
    }
    double cpu = bench_cpu() - start;
    bench_sample("apply commits of 1000", "plain", cpu);
    bench_sample("apply commits of 1", "plain", cpu);
    sqlite3_finalize(insert);
    sqlite3_close(target);
    bench_remove(path);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        bench_die("usage", "apply DIRECTORY REPETITIONS ROWS");
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/apply.db", argv[1]);
    int64_t count = strtoll(argv[3], NULL, 10) / PAGE_ROWS * PAGE_ROWS;
    bench_row *rows = calloc((size_t)count, sizeof *rows);
    for (long r = strtol(argv[2], NULL, 10); r > 0; r--) {
        for (int64_t i = 0; i < count; i++) {
            bench_row_make(&rows[i], (uint64_t)r, (uint64_t)i);
        }
        plain(path, rows, count);
        apply(path, "commits of 1000", rows, count, PAGE_ROWS);
        apply(path, "commits of 1", rows, count, 1);
    }
    free(rows);
    return 0;
}
