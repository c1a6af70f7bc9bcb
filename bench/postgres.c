/* What PostgreSQL itself takes for the rows of a server's store: one connection in pipeline mode,
 * prepared statements, a statement per table and batch, whole columns as binary arrays, one
 * transaction per batch.
 *
 *   same BATCH      reads what a server has written into a new database, empties the tables and
 *                   writes the very rows again
 *   smallest OPS BATCH   the smallest useful loop: upsert, a log of changes, a watermark per device
 *   cpu             seconds of CPU that all processes of the cluster have used so far
 *
 * Arguments: URL COMMAND .. Prints operations, seconds of the wall, seconds of CPU of the loop and
 * the cluster together. */
#include "common.h"

#include <dirent.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLES      5
#define COLUMNS_CAP 16
#define FLOAT8_OID  701
#define TEXT_OID    25

/* ---- the connection ---- */

static PGconn *dial(const char *url) {
    PGconn *c = PQconnectdb(url);
    if (PQstatus(c) != CONNECTION_OK) {
        bench_die("connect", PQerrorMessage(c));
    }
    return c;
}

static PGresult *ask(PGconn *c, const char *sql, int format) {
    PGresult *r = PQexecParams(c, sql, 0, NULL, NULL, NULL, NULL, format);
    ExecStatusType kind = PQresultStatus(r);
    if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK) {
        bench_die(sql, PQerrorMessage(c));
    }
    return r;
}

static void tell(PGconn *c, const char *sql) {
    PQclear(ask(c, sql, 0));
}

static void prepare(PGconn *c, const char *name, const char *sql) {
    PGresult *r = PQprepare(c, name, sql, 0, NULL);
    if (PQresultStatus(r) != PGRES_COMMAND_OK) {
        bench_die(sql, PQerrorMessage(c));
    }
    PQclear(r);
}

static void send_plain(PGconn *c, const char *sql) {
    if (!PQsendQueryParams(c, sql, 0, NULL, NULL, NULL, NULL, 0)) {
        bench_die(sql, PQerrorMessage(c));
    }
}

/* Takes all answers up to the end of the pipeline. */
static void drain(PGconn *c) {
    if (!PQpipelineSync(c)) {
        bench_die("sync", PQerrorMessage(c));
    }
    for (;;) {
        PGresult *r = PQgetResult(c);
        ExecStatusType kind = PQresultStatus(r);
        if (r && kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK &&
            kind != PGRES_PIPELINE_SYNC) {
            bench_die("write", PQresultErrorMessage(r));
        }
        PQclear(r);
        if (r && kind == PGRES_PIPELINE_SYNC) {
            return;
        }
    }
}

/* ---- CPU ---- */

/* Fields behind the name: [1] parent, [11..14] user, system, and the same of ended children. */
static long stat_fields(long pid, long out[16]) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    const char *at = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    if (f) {
        fclose(f);
    }
    if (!at) {
        return 0;
    }
    char *end = NULL;
    at += 4; /* behind the state */
    for (int i = 1; i < 16; i++) {
        out[i] = strtol(at, &end, 10);
        at = end;
    }
    return pid;
}

static double cluster_cpu(PGconn *c) {
    long fields[16] = {0};
    if (!stat_fields(PQbackendPID(c), fields)) {
        bench_die("cpu", "the server is not on this machine");
    }
    long postmaster = fields[1], ticks = 0;
    if (stat_fields(postmaster, fields)) {
        ticks = fields[11] + fields[12] + fields[13] + fields[14];
    }
    DIR *all = opendir("/proc");
    for (struct dirent *e = all ? readdir(all) : NULL; e; e = readdir(all)) {
        long pid = strtol(e->d_name, NULL, 10);
        if (pid > 0 && stat_fields(pid, fields) && fields[1] == postmaster) {
            ticks += fields[11] + fields[12];
        }
    }
    closedir(all);
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

typedef struct {
    double wall, cpu;
} meter;

static meter meter_start(PGconn *c) {
    return (meter){bench_wall(), bench_cpu() + cluster_cpu(c)};
}

static void meter_print(PGconn *c, meter begin, long ops) {
    double wall = bench_wall() - begin.wall;
    printf("%ld %.9g %.9g\n", ops, wall, bench_cpu() + cluster_cpu(c) - begin.cpu);
}

/* ---- arrays in PostgreSQL's binary form ---- */

typedef struct {
    char *at;
    size_t len, cap;
} buffer;

static void put(buffer *b, const void *data, size_t len) {
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2;
        b->at = realloc(b->at, b->cap);
        if (!b->at) {
            bench_die("memory", "");
        }
    }
    if (len > 0) {
        memcpy(b->at + b->len, data, len);
    }
    b->len += len;
}

static void put_int(buffer *b, uint64_t n, int width) {
    unsigned char out[8];
    for (int i = 0; i < width; i++) {
        out[i] = (unsigned char)(n >> (8 * (width - 1 - i)));
    }
    put(b, out, (size_t)width);
}

static void array_begin(buffer *b, unsigned type, long count) {
    b->len = 0;
    put_int(b, 1, 4); /* dimensions */
    put_int(b, 1, 4); /* there may be nulls */
    put_int(b, type, 4);
    put_int(b, (uint64_t)count, 4);
    put_int(b, 1, 4); /* lower bound */
}

static void array_item(buffer *b, const void *data, size_t len) {
    put_int(b, len, 4);
    put(b, data, len);
}

static void send_arrays(PGconn *c, const char *name, const buffer *columns, int count) {
    const char *values[COLUMNS_CAP];
    int lengths[COLUMNS_CAP], formats[COLUMNS_CAP];
    for (int i = 0; i < count; i++) {
        values[i] = columns[i].at;
        lengths[i] = (int)columns[i].len;
        formats[i] = 1;
    }
    if (!PQsendQueryPrepared(c, name, count, values, lengths, formats, 0)) {
        bench_die(name, PQerrorMessage(c));
    }
}

/* ---- the same rows ---- */

static const char *const tables[TABLES] = {"public.pins", "godwit.row", "godwit.change",
                                           "godwit.op", "godwit.commit"};

static void send_rows(PGconn *c, int table, const PGresult *rows, long from, long to) {
    static buffer columns[COLUMNS_CAP];
    int count = PQnfields(rows);
    for (int k = 0; k < count; k++) {
        array_begin(&columns[k], PQftype(rows, k), to - from);
        for (long n = from; n < to; n++) {
            if (PQgetisnull(rows, (int)n, k)) {
                put_int(&columns[k], UINT32_MAX, 4);
            } else {
                array_item(&columns[k], PQgetvalue(rows, (int)n, k),
                           (size_t)PQgetlength(rows, (int)n, k));
            }
        }
    }
    if (to > from) {
        send_arrays(c, tables[table], columns, count);
    }
}

/* INSERT INTO table SELECT * FROM unnest($1::type[], ..) */
static void prepare_insert(PGconn *c, const char *table) {
    char sql[2048];
    snprintf(sql, sizeof sql,
             "SELECT string_agg('$' || n || '::' || type || '[]', ', ' ORDER BY n) FROM (SELECT"
             " row_number() OVER (ORDER BY attnum) AS n, format_type(atttypid, NULL) AS type"
             " FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0"
             " AND NOT attisdropped) t",
             table);
    PGresult *r = ask(c, sql, 0);
    snprintf(sql, sizeof sql, "INSERT INTO %s SELECT * FROM unnest(%s)", table,
             PQgetvalue(r, 0, 0));
    PQclear(r);
    prepare(c, table, sql);
}

static void same(PGconn *c, long batch) {
    PGresult *rows[TABLES];
    char sql[256], marks[256];
    for (int t = 0; t < TABLES; t++) { /* in the order they were written */
        snprintf(sql, sizeof sql, "SELECT * FROM %s ORDER BY ctid", tables[t]);
        rows[t] = ask(c, sql, 1);
        prepare_insert(c, tables[t]);
    }
    tell(c, "SET godwit.writing = 'yes'");
    tell(c, "TRUNCATE public.pins, godwit.row, godwit.change, godwit.op, godwit.commit");
    tell(c, "CHECKPOINT");
    long ops = PQntuples(rows[0]);
    PQenterPipelineMode(c);
    meter begin = meter_start(c);
    for (long at = 0; at < ops; at += batch) {
        long end = at + batch < ops ? at + batch : ops;
        send_plain(c, "BEGIN");
        for (int t = 0; t < TABLES; t++) {
            long count = PQntuples(rows[t]);
            send_rows(c, t, rows[t], count * at / ops, count * end / ops);
        }
        snprintf(marks, sizeof marks,
                 "WITH s AS (UPDATE godwit.scope SET head = %ld WHERE scope = 's')"
                 " UPDATE godwit.device SET applied_seq = %ld, last_seen = now()"
                 " WHERE scope = 's' AND device_id = repeat('0', 31) || '1'",
                 end, end);
        send_plain(c, marks);
        send_plain(c, "COMMIT");
        drain(c);
    }
    meter_print(c, begin, ops);
    for (int t = 0; t < TABLES; t++) {
        PQclear(rows[t]);
    }
}

/* ---- the smallest ---- */

static void small_prepare(PGconn *c) {
    static const char columns[] = "(id text PRIMARY KEY, title text, note text,"
                                  " lat double precision, lng double precision, status text,"
                                  " updated_at text)";
    char sql[512];
    tell(c, "DROP SCHEMA IF EXISTS small CASCADE");
    tell(c, "CREATE SCHEMA small");
    snprintf(sql, sizeof sql, "CREATE TABLE small.pins%s", columns);
    tell(c, sql);
    tell(c, "CREATE TABLE small.change(seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " id text, title text, note text, lat double precision, lng double precision,"
            " status text, updated_at text)");
    tell(c, "CREATE TABLE small.done(device text PRIMARY KEY, seq bigint)");
#define ARRAYS                                                                                     \
    "unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::float8[], $6::text[],"           \
    " $7::text[])"
    prepare(c, "upsert",
            "INSERT INTO small.pins SELECT * FROM " ARRAYS " ON CONFLICT (id) DO UPDATE SET"
            " title = excluded.title, note = excluded.note, lat = excluded.lat,"
            " lng = excluded.lng, status = excluded.status, updated_at = excluded.updated_at");
    prepare(c, "log",
            "INSERT INTO small.change(id, title, note, lat, lng, status, updated_at)"
            " SELECT * FROM " ARRAYS);
#undef ARRAYS
}

static void put_real(buffer *b, double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    put_int(b, 8, 4);
    put_int(b, bits, 8);
}

static void small_columns(const bench_row *rows, long count, buffer columns[BENCH_COLUMNS]) {
    for (int k = 0; k < BENCH_COLUMNS; k++) {
        array_begin(&columns[k], k == 3 || k == 4 ? FLOAT8_OID : TEXT_OID, count);
    }
    for (long n = 0; n < count; n++) {
        const bench_row *r = &rows[n];
        array_item(&columns[0], r->id, strlen(r->id));
        array_item(&columns[1], r->title, strlen(r->title));
        array_item(&columns[2], r->note, strlen(r->note));
        put_real(&columns[3], r->lat);
        put_real(&columns[4], r->lng);
        array_item(&columns[5], r->status, strlen(r->status));
        array_item(&columns[6], r->updated_at, strlen(r->updated_at));
    }
}

static void smallest(PGconn *c, long ops, long batch) {
    static buffer columns[BENCH_COLUMNS];
    bench_row *rows = calloc((size_t)ops, sizeof *rows);
    if (!rows) {
        bench_die("memory", "");
    }
    for (long n = 0; n < ops; n++) {
        bench_row_make(&rows[n], 1000, (uint64_t)n + 1);
    }
    small_prepare(c);
    tell(c, "CHECKPOINT");
    PQenterPipelineMode(c);
    meter begin = meter_start(c);
    for (long at = 0; at < ops; at += batch) {
        char mark[128];
        long count = at + batch < ops ? batch : ops - at;
        small_columns(rows + at, count, columns);
        send_plain(c, "BEGIN");
        send_arrays(c, "upsert", columns, BENCH_COLUMNS);
        send_arrays(c, "log", columns, BENCH_COLUMNS);
        snprintf(mark, sizeof mark,
                 "INSERT INTO small.done VALUES ('1', %ld) ON CONFLICT (device) DO UPDATE"
                 " SET seq = excluded.seq",
                 at + count);
        send_plain(c, mark);
        send_plain(c, "COMMIT");
        drain(c);
    }
    meter_print(c, begin, ops);
    free(rows);
}

int main(int argc, char **argv) {
    const char *command = argc > 2 ? argv[2] : "";
    if (argc < 3) {
        bench_die("usage", "postgres URL same BATCH | smallest OPS BATCH | cpu");
    }
    PGconn *c = dial(argv[1]);
    if (strcmp(command, "same") == 0 && argc == 4) {
        same(c, strtol(argv[3], NULL, 10));
    } else if (strcmp(command, "smallest") == 0 && argc == 5) {
        smallest(c, strtol(argv[3], NULL, 10), strtol(argv[4], NULL, 10));
    } else if (strcmp(command, "cpu") == 0) {
        printf("%.9g\n", cluster_cpu(c));
    } else {
        bench_die(command, "no such command");
    }
    PQfinish(c);
    return 0;
}
