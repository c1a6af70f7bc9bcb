/* Questions that a rule outside of this program answers (godwit/hook.h): their text, and the list
 * of those a push has asked so far. Pure.
 *
 * decide finds the answers it needs in the list and adds the questions that are not there yet; who
 * called it has them answered, away from the scope, and decides again. A question is its text: what
 * changed meanwhile makes another one.
 *
 *   {"hook":"validate","scope":"s","table":"t","id":"1","user":"u","device":"d","kind":"update",
 *    "columns":[{"name":"title","base":"a","ours":"b"}]}
 *   {"hook":"resolve","rule":"lines","scope":"s","table":"t","id":"1",
 *    "columns":[{"name":"note","base":"a","theirs":"b","ours":"c"}]} */
#ifndef CORE_ASK_H
#define CORE_ASK_H

#include "core/value.h"

typedef enum {
    ASK_WAITING,
    ASK_VALUES, /* `values` are what the columns become */
    ASK_MANUAL  /* left to people, by the rule or because it failed */
} ask_state;

typedef struct {
    slice question;
    uint64_t hash;
    ask_state state;
    size_t count;        /* of columns */
    const value *values; /* [count] */
} ask_item;

typedef struct {
    arena *a; /* of questions and answers: outlives the transactions */
    ask_item *items;
    size_t count, cap;
    size_t at;      /* the next one is probably wanted next */
    size_t bytes;   /* of all questions */
    size_t waiting; /* met since the caller set it to 0, not answered yet */
    bool closed;    /* nothing is asked any more: what is not answered is left to people */
} ask_list;

/* The answer; NULL: there is none yet (it counts as waiting), or it will not be asked (closed, or
 * the list is full: treat as ASK_MANUAL), or the arena failed. count: columns it is about. */
const ask_item *ask_find(ask_list *l, slice question, size_t count);

/* Empty members are left out. */
typedef struct {
    slice hook, rule, scope, table, id, user, device, kind;
} ask_head;
/* Up to and including "columns":[ */
void ask_begin(bytes *b, const ask_head *h);
/* Sides that are NULL are left out. */
void ask_column(bytes *b, bool *first, slice name, const value *base, const value *theirs,
                const value *ours);
void ask_end(bytes *b);

#endif
