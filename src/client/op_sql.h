/* What an operation's row does not store because it can be computed: its public id, the time it was
 * captured, the lineage it was captured under. As SQL text, for the views and for queries; all of
 * it is plain SQL, since the views are read by programs without Godwit. */
#ifndef CLIENT_OP_SQL_H
#define CLIENT_OP_SQL_H

/* Mirrors id_operation (core/id.h): the lineage's first 72 bits and the lsn. Both: SQL expressions.
 */
#define OP_ID_OF(lineage, lsn)                                                                     \
    "substr(" lineage ", 1, 8) || '-' || substr(" lineage ", 9, 4) || '-8' || substr(" lineage     \
    ", 13, 3) || '-8' || substr(" lineage ", 16, 3) || '-' || printf('%012x', " lsn ")"

/* Of the row `o` of godwit_op. A lineage is stored where it is not the device's id: an identity
 * that has never been changed is named after its lineage. */
#define OP_ID      "(" OP_ID_OF(OP_LINEAGE, "o.lsn") ")"
#define OP_LINEAGE OP_LINEAGE_OF("o")
#define OP_CREATED "strftime('%Y-%m-%dT%H:%M:%fZ', o.wall_ms / 86400000.0 + 2440587.5)"

#define OP_LINEAGE_OF(row) "coalesce(" row ".lineage, " row ".device_id)"

/* Whether a row of godwit_op is the one with a public id; finds it by its lsn. */
#define OP_HAS_ID(row, id)                                                                         \
    "(" row ".lsn = " OP_LSN(id) " AND " OP_ID_OF(OP_LINEAGE_OF(row), row ".lsn") " = " id ")"
#define OP_LSN(id)                                                                                 \
    "((" OP_FOUR(id, "25", "26", "27", "28") ") * 4294967296 + (" OP_FOUR(                         \
        id, "29", "30", "31", "32") ") * 65536 + " OP_FOUR(id, "33", "34", "35", "36") ")"
#define OP_FOUR(id, a, b, c, d)                                                                    \
    OP_DIGIT(id, a)                                                                                \
    " * 4096 + " OP_DIGIT(id, b) " * 256 + " OP_DIGIT(id, c) " * 16 + " OP_DIGIT(id, d)
#define OP_DIGIT(id, at) "(instr('0123456789abcdef', substr(" id ", " at ", 1)) - 1)"

#endif
