/* What must be true (semantics 16), and what the checker remembers to know it.
 *
 * The oracle reads both sides' databases after every step and never asks the product's code. From
 * the server's log it builds every state S_n the server was ever in; a device must show S_cursor
 * with its own waiting operations on top, at every moment (I11, I12). oracle.c reads the server,
 * oracle_merge.c judges its decisions, oracle_types.c counters and sets, oracle_order.c what comes
 * before what, oracle_device.c reads devices, oracle_end.c judges the end.
 */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TABLES       3
#define COLUMNS      5 /* of the widest table, without the key */
#define ROWS_MAX     512
#define DEPS_MAX     4
#define CLOCKS_KEPT  16
#define WRITTEN_KEPT 64

struct world;

/* A text that was seen; equal texts are one atom. */
typedef struct atom {
    struct atom *next;
    uint64_t hash;
    int op, decided, row; /* index + 1 of what has this name; 0 = nothing */
    char text[];
} atom;

typedef struct { /* a table of the world; one schema for all */
    const char *name;
    int columns;
    const char *column[COLUMNS];
    const char *kinds; /* of each: p plain, c counter, s set, x maximum, n minimum */
    bool strict;       /* no constraint of its own: every replica can show every state */
} oracle_table;
extern const oracle_table oracle_tables[TABLES];

typedef struct { /* a row as some commit left it */
    int64_t seq;
    bool present;
    const atom *value[COLUMNS]; /* as SQL literals */
    int64_t ver[COLUMNS];       /* commit that last changed the value */
    int64_t written[COLUMNS];   /* commit that last wrote it, the same value or another */
    int writer[COLUMNS];        /* whose: index of the stream + 1 */
    int changer[COLUMNS];       /* whose commit that was: index of the stream + 1, 0 = nobody's */
    uint64_t authors[COLUMNS];  /* streams that wrote this very value, by their index */
    int64_t gone;               /* commit that deleted it last, and whose that was */
    int gone_by;
    int row, before; /* index of the row's version before, -1 = none */
} version;

typedef struct {
    int table;
    const atom *id;
    int last; /* its newest version, -1 */
    int scope;
    int64_t vague; /* the commit since which its sets are not followed, 0 = they are */
} known_row;

typedef struct {     /* that somebody added an element to a set */
    int row, author; /* author: index of the stream */
    char element;
    int64_t commit, seq;
    int64_t gone; /* the commit of somebody who had seen it and removed it, 0 = none */
} oracle_tag;

typedef struct { /* an operation as a device sealed it */
    const atom *key, *device;
    char kind; /* c u d v */
    int row;
    unsigned mask, old_mask;
    const atom *now[COLUMNS], *old[COLUMNS];
    int64_t seq, base_seq, base_salt, group_first, group_size;
    int maker;      /* device of the world */
    bool shared;    /* a copy of its database has, or had, it too */
    bool replaced;  /* refused, and another one or a person's word has taken its place */
    bool lost;      /* the log had it, and was replaced by a backup that has not */
    int previous;   /* index + 1 of the operation its maker sealed before */
    int64_t passed; /* commit of an operation that came after it, and is in the log before it */
    const atom *deps[DEPS_MAX]; /* keys of the operations it needs */
    int dep_count;
    const atom *reverts; /* id of the conflict whose decision it takes back, or NULL */
} known_op;

typedef struct { /* an operation as the server decided it */
    const atom *key, *device, *outcome;
    int64_t seq, commit;
    bool effect;
    int scope;
} decision;

typedef struct {
    const atom *device;
    int64_t applied;
} stream;

typedef struct {
    int64_t head, horizon;
    int64_t *salts; /* [head], of commit i + 1 */
    size_t salt_cap;
    stream streams[64];
    int stream_count, committing; /* index + 1 of the stream whose commit is read */
    bool duplicate;               /* that commit only points to an earlier one */
    bool lost_history;            /* the server was restored from a backup in this seed */
} oracle_scope;

typedef struct {
    atom **atoms;
    known_row rows[ROWS_MAX];
    int row_count;
    version *versions;
    int version_count, version_cap;
    known_op *ops;
    int op_count, op_cap;
    decision *decisions;
    int decision_count, decision_cap;
    oracle_scope scopes[2];
    oracle_tag *tags;
    int tag_count, tag_cap;
    const atom *clocks[CLOCKS_KEPT]; /* vector clocks of rows, the newest ones */
    unsigned clock_at;
} oracle;

typedef struct { /* a row as an application shows it */
    bool present;
    const atom *value[COLUMNS];
} shown_row;

typedef struct { /* what the application committed together, until it is sealed */
    int64_t first, last, group;
} together;

typedef struct {
    together written[WRITTEN_KEPT];
    unsigned written_at;
    shown_row rows[ROWS_MAX];     /* by known_row index, as seen last */
    int64_t log_seen, op_seen;    /* lsn */
    bool behind, starting, fresh; /* the horizon; a snapshot is under way, has just come */
    bool lived;                   /* it has shown a state of the server */
    int last_op;                  /* index + 1 of the operation it sealed last */
} oracle_device;

void oracle_init(oracle *o);
void oracle_deinit(oracle *o);
atom *oracle_atom(oracle *o, const char *text);
int oracle_row(oracle *o, int table, const char *id, int scope);
int oracle_table_of(const char *name); /* -1 */
/* The row's version at commit seq; NULL = it was never there. */
const version *oracle_at(const oracle *o, int row, int64_t seq);

/* It changed something, or found it done; what is held as a whole waits for a person. */
bool oracle_effective(const decision *d);

/* Index of the stream that carried it, and the commit up to which the operation's author had seen
 * this history. */
int oracle_author(const oracle *o, const decision *d);
int64_t oracle_seen(const oracle *o, int scope, const known_op *k);
/* The start of a query for the key and the first `columns` of a table, as SQL literals. */
void oracle_select(const oracle_table *t, int columns, char sql[512]);

/* Reads what the server has committed since, and checks it. */
void oracle_server(struct world *w);
/* The server's history was replaced: forgets what is no longer in it. */
void oracle_rewind(struct world *w);
/* Judges commit `seq` of a scope; decisions[first..] are its own. */
void oracle_judge(struct world *w, int scope, int64_t seq, int first);

/* Judges what comes before what in commit `seq`, and its clocks; decisions[first..] are its own. */
void oracle_order(struct world *w, int scope, int64_t seq, int first);
/* From now on every group is decided twice, and both must be the same. */
void oracle_twice(struct world *w);
/* Judges operations of commit `seq` that take a decision back. */
void oracle_revert(struct world *w, int scope, int64_t seq, int first);
/* Judges columns of commit `seq` whose concurrent writes commute. */
void oracle_types(struct world *w, int scope, int64_t seq, int first);
/* The history behind commit `seq` is no more. */
void oracle_types_forget(oracle *o, int scope, int64_t seq);
/* What `present` becomes by an operation whose author saw `old` and left `now`. */
const atom *oracle_commute(oracle *o, char kind, const atom *present, const atom *old,
                           const atom *now);
/* A device has operation `op` (index), which follows those it had. */
void oracle_learn_order(struct world *w, int number, int op, int64_t lsn);

/* Learns operations a device has sealed (before they travel). */
void oracle_learn(struct world *w, int number);
/* Reads a device and checks it. wrote: the application has just committed. */
void oracle_device_check(struct world *w, int number, bool wrote);
/* The end: all are connected and idle. false: not yet (why in `reason`). */
bool oracle_settled(struct world *w, char reason[256]);
void oracle_end(struct world *w);

#endif
