/* What became of each operation: the view godwit_receipts and the calls that read it. */
#ifndef CLIENT_RECEIPT_H
#define CLIENT_RECEIPT_H

#include "client/client.h"

/* What is left of operations that were forgotten and of which godwit_outcome knows nothing: about
 * 20 bytes each. outcome NULL = applied; at in seconds. Their ids are lineage and lsn. */
#define RECEIPT_TABLE                                                                              \
    "CREATE TABLE godwit_receipt (lsn INTEGER PRIMARY KEY, commit_seq INTEGER, outcome TEXT,"      \
    " at INTEGER);"

void receipt_view(bytes *b, int64_t further_keys);
/* `id` of an operation, captured or sealed. NOT_FOUND. */
godwit_status receipt_read(godwit *g, slice id, godwit_receipt *out) MUST_USE;

#endif
