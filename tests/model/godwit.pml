/* The delivery protocol: two replicas, one server, a lossy, duplicating, reordering network, crashes
 * on both sides, and (CLONE) two replicas that begin with one identity.
 *
 * Checked: every operation takes effect at most once, in the order of its replica; an operation that a
 * replica believes delivered has taken effect; and, once faults stop, everything is delivered.
 * Left out: payloads, merge, the feed (an acknowledgement stands for "own key seen").
 *
 * -DCLONE selects the shared identity (and one restore of an old copy), -DSHARED with an operation that
 * both copies hold. Each M_* switch breaks one rule and must be refuted:
 *   M_KEY_APART      the effect and its key are two transactions, a crash may fall between
 *   M_NO_LEDGER      a re-sent operation is executed again
 *   M_DEQUEUE        an operation leaves the queue when it is sent
 *   M_WATERMARK      acknowledgement by the server's watermark instead of the operation's own key (CLONE)
 *   M_NO_PREVKEY     the server does not compare the previous key (CLONE)
 *   M_NEW_KEY        a re-keyed operation gets a new key (CLONE: a copy restored afterwards doubles it)
 *   M_GAP            the server takes an operation whose predecessor it has not seen (the previous key alone
 *                    would still refuse it: refuted together with M_NO_PREVKEY)
 *   M_STUCK          after a crash an operation in flight is never sent again
 *
 * Run by tests/model/run; one command per line there. */

#define KEYS 9     /* keys 1..8; 0 = none */
#define IDS 5      /* identities: 0 and 1 at the start, the others after a re-key */
#define SEQS 3     /* sequence numbers 1..2 */
#ifndef FAULTS
#define FAULTS 2   /* losses, duplicates, crashes and early sends in total */
#endif

mtype = { OK, FORKED, GAP };

/* request: replica, identity, seq, key, previous key; reply: replica, verdict, identity, seq, key, watermark */
chan req = [2] of { byte, byte, byte, byte, byte };
chan rep = [2] of { byte, mtype, byte, byte, byte, byte };

/* the server's durable state */
byte applied[IDS];            /* watermark per stream */
byte ledger[15];              /* identity * SEQS + seq -> key */
bool decided[KEYS];           /* key has been decided */
byte effect[KEYS];            /* how often an operation took effect, by its first key */
byte first[KEYS];             /* key -> the key it was captured with (differs in M_NEW_KEY only) */
byte next_id = 2, next_key = 6;
byte faults = FAULTS;

/* a replica's durable state */
typedef replica_t {
    byte id;                  /* current identity */
    byte key[SEQS];           /* operations in order, 1..count; keys never change */
    byte at[SEQS];            /* their seq under the current identity, 0 = decided under an earlier one */
    bool acked[SEQS];
    bool inflight[SEQS];      /* used by M_STUCK only */
    byte count;
}
replica_t r[2];
bool restored;

inline apply_effect(k) {
    effect[first[k]]++;
    assert(effect[first[k]] <= 1)                           /* exactly once */
}

proctype Server() {
    byte who, id, seq, key, prev;
    do
    :: atomic {
        (nempty(req)) ->
        if
        :: req ?? who, id, seq, key, prev
        :: faults > 0 -> faults--; req ?? who, id, seq, key, prev; req ! who, id, seq, key, prev /* duplicate */
        fi;
        if
        :: seq <= applied[id] ->                            /* re-sent */
            if
            :: ledger[id * SEQS + seq] == key ->
#ifdef M_NO_LEDGER
                apply_effect(key);
#endif
                rep ! who, OK, id, seq, key, applied[id]
#ifdef M_WATERMARK
            :: else -> rep ! who, OK, id, seq, key, applied[id]
#else
            :: else -> rep ! who, FORKED, id, seq, key, applied[id]
#endif
            fi
#ifndef M_GAP
        :: seq > applied[id] + 1 -> rep ! who, GAP, id, seq, key, applied[id]
#endif
        :: else ->
            if
#ifndef M_NO_PREVKEY
            :: prev != ledger[id * SEQS + applied[id]] -> rep ! who, FORKED, id, seq, key, applied[id]
#endif
            :: else ->
                if
                :: decided[key] -> skip                     /* a re-keyed operation known already */
                :: else -> apply_effect(key)
                fi;
#ifdef M_KEY_APART
                if
                :: faults > 0 -> faults--; goto crashed
                :: else
                fi;
#endif
                decided[key] = true; applied[id] = seq; ledger[id * SEQS + seq] = key;
                rep ! who, OK, id, seq, key, applied[id]
            fi
        fi;
        crashed: skip
       }
    od
}

/* drops a request or a reply; a server crash before commit or before the reply is the same to the others */
proctype Network() {
    byte a, b, c, d, e; mtype m;
    do
    :: atomic { faults > 0 && nempty(req) -> faults--; req ?? a, b, c, d, e }
    :: atomic { faults > 0 && nempty(rep) -> faults--; rep ?? a, m, b, c, d, e }
    :: faults == 0 -> break
    od
}

inline prev_key(me, i, out) {
    out = 0;
    if
    :: r[me].at[i] > 1 -> out = r[me].key[i - 1]
    :: else
    fi
}

#define known(me, j) (r[me].at[j] <= applied[r[me].id] && ledger[r[me].id * SEQS + r[me].at[j]] == r[me].key[j])

/* compare the server's ledger with the own history; what does not match goes again under a new identity */
inline reconcile(me) {
    byte j, n;
    assert(next_id < IDS);
    n = 0;
    for (j : 1 .. r[me].count) {
        if
        :: r[me].at[j] > 0 && known(me, j) ->
            r[me].acked[j] = true; r[me].at[j] = 0
        :: r[me].at[j] > 0 && !known(me, j) ->
            n++; r[me].at[j] = n;
#ifdef M_NEW_KEY
            if
            :: next_key < KEYS -> first[next_key] = first[r[me].key[j]]; r[me].key[j] = next_key; next_key++
            :: else
            fi;
#endif
            r[me].acked[j] = false
        :: else
        fi
    }
    r[me].id = next_id; next_id++; j = 0; n = 0
}

proctype Replica(byte me) {
    byte i, seq, key, prev, mark, id; mtype verdict;
    do
    :: atomic {                                             /* send the first operation that is not acknowledged */
        nfull(req) ->
        i = 1;
        do
        :: i <= r[me].count && (r[me].acked[i] || r[me].inflight[i]) -> i++
        :: else -> break
        od;
        if
        :: i <= r[me].count && (i == 1 || r[me].acked[i - 1] || r[me].at[i - 1] > 0) ->
            prev_key(me, i, prev);
            req ! me, r[me].id, r[me].at[i], r[me].key[i], prev;
#ifdef M_DEQUEUE
            r[me].acked[i] = true;
#endif
#ifdef M_STUCK
            r[me].inflight[i] = true;
#endif
            skip
        :: else
        fi;
        i = 0; prev = 0
       }
    :: atomic {                                             /* the second may be sent before the first is answered */
        nfull(req) && faults > 0 && !r[me].acked[1] && !r[me].acked[2] && r[me].at[2] == 2 ->
        faults--;
        req ! me, r[me].id, 2, r[me].key[2], r[me].key[1]
       }
#ifdef CLONE
    :: atomic {                                             /* an old copy of this replica is restored */
        me == 0 && !restored && r[me].id != 0 ->
        restored = true;
        r[me].id = 0; r[me].at[1] = 1; r[me].at[2] = 2; r[me].acked[1] = false; r[me].acked[2] = false;
        r[me].key[1] = 1; r[me].key[2] = 2
       }
#endif
    :: atomic {
        rep ?? eval(me), verdict, id, seq, key, mark ->
        if
        :: id != r[me].id -> skip                           /* answer to an identity no longer used */
        :: id == r[me].id && verdict == OK ->
            for (i : 1 .. r[me].count) {
                if
#ifdef M_WATERMARK
                :: r[me].at[i] > 0 && r[me].at[i] <= mark -> r[me].acked[i] = true
#else
                :: r[me].at[i] == seq && r[me].key[i] == key -> r[me].acked[i] = true
#endif
                :: else
                fi;
            }
        :: id == r[me].id && verdict == FORKED -> reconcile(me)
        :: else -> skip
        fi;
        i = 1;
        do                                                  /* believed delivered implies took effect */
        :: i <= r[me].count -> assert(!r[me].acked[i] || effect[first[r[me].key[i]]] == 1); i++
        :: else -> break
        od;
        i = 0; seq = 0; key = 0; mark = 0; id = 0; verdict = 0
       }
    od
}

/* an operation never takes effect before an earlier one of its replica */
#define took(me, i) (effect[first[r[me].key[i]]] == 1)
#define ordered(me) (!took(me, 2) || took(me, 1))
#define delivered(me) (r[me].acked[1] && r[me].acked[2])
ltl progress { <> [] (delivered(0) && delivered(1)) }
#define honest(me) (!delivered(me) || (took(me, 1) && took(me, 2)))
ltl safety { [] (ordered(0) && ordered(1) && honest(0) && honest(1)) }

init {
    atomic {
        r[0].count = 2; r[1].count = 2;
        r[0].at[1] = 1; r[0].at[2] = 2; r[1].at[1] = 1; r[1].at[2] = 2;
        r[0].key[1] = 1; r[0].key[2] = 2;
        r[1].key[1] = 3; r[1].key[2] = 4;
        first[1] = 1; first[2] = 2; first[3] = 3; first[4] = 4;
#ifdef CLONE
        r[0].id = 0; r[1].id = 0;
#ifdef SHARED
        r[1].key[1] = 1;                                    /* the copy was taken after the first operation */
#endif
#else
        r[0].id = 0; r[1].id = 1;
#endif
        run Server(); run Network(); run Replica(0); run Replica(1)
    }
}
