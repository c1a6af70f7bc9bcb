/* What the pump notes of its passes: that both sides agreed, and that what went wrong is over. */
#include "client/count.h"
#include "client/pump.h"

#include <stdio.h>

godwit_status pump_forget_failures(godwit *g, pump *p) {
    int64_t failures = 0;
    char key[160];
    snprintf(key, sizeof key, "round:" SLICE_FMT, SLICE_ARG(p->request.scope));
    godwit_status status = client_meta_int(g, "failures", 0, &failures);
    if (status != GODWIT_OK || (failures == 0 && !p->round_kept)) {
        return status;
    }
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_set_int(g, "failures", 0);
    if (status == GODWIT_OK) {
        status = client_meta_set_int(g, "next_attempt_ms", 0);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, key, (slice){0});
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, "last_error", (slice){0});
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        return status;
    }
    p->round_kept = false;
    return GODWIT_OK;
}

godwit_status pump_note_success(godwit *g, pump *p) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_set_int(g, "last_sync_ms", client_wall_ms(g));
    if (status == GODWIT_OK) {
        status = count_add(g, "requests", p->requests);
    }
    if (status == GODWIT_OK) {
        status = count_add(g, "bytes:sent", p->sent_bytes);
    }
    if (status == GODWIT_OK) {
        status = count_add(g, "bytes:received", p->received_bytes);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        return status;
    }
    p->requests = p->sent_bytes = p->received_bytes = 0;
    return GODWIT_OK;
}
