/* May the device that asks? A request that names a device is that device's: it must be this user's
 * and in use, whatever the request wants. What belongs to somebody else gets the answer of what
 * nobody has.
 *
 * A request names its device itself, so that this holds back a device that is lost only as long as
 * it tells the truth; a token that names its device (device_claim) leaves it no choice. Pushes
 * without a stream and plain pulls by POST may name a device that was never registered. */
#include "server/service_inner.h"

bool admit_refuse(service_job *job, stream_verdict verdict) {
    switch (verdict) {
    case STREAM_FORBIDDEN_DEVICE: /* the same as for an id that nobody has */
        service_problem(job, 409, "device-unknown", "register the device in this scope", NULL);
        return true;
    case STREAM_REVOKED:
        service_problem(job, 403, "device-revoked", "the device may no longer be used", NULL);
        return true;
    case STREAM_RETIRED:
        service_problem(job, 409, "device-retired", "go on under a new device id", NULL);
        return true;
    case STREAM_OK:
    case STREAM_FORKED: /* reads on, and learns it when it pushes */
    case STREAM_GAP:
    case STREAM_REGRESSED:
        break;
    }
    return false;
}

bool admit_named(service_job *job, slice device) {
    if (job->who.device.len == 0 || device.len == 0 || slice_equal(job->who.device, device)) {
        return true;
    }
    service_problem(job, 403, "device-revoked", "the token is for another device", NULL);
    return false;
}

typedef struct {
    slice device;
    bool registered; /* it has to be */
} caller;

static caller caller_of(const service_job *job) {
    const job_state *state = job->state;
    switch (job->verb) {
    case VERB_SYNC:
    case VERB_PUSH:
        return (caller){state->push.device_id, state->push.stream};
    case VERB_HISTORY: /* of an operation: whose it is, not who asks */
        return (caller){job->q_entity_id.len ? job->q_device : (slice){0}, true};
    case VERB_CHANGES:
    case VERB_SNAPSHOT:
    case VERB_CONFLICTS:
        return (caller){job->q_device, true};
    case VERB_RECONCILE: /* names all its identities, and is told about each */
    case VERB_REGISTER:
    case VERB_META:
        break;
    }
    return (caller){0};
}

bool admit_reader(service_reader *r, service_job *job, slice scope) {
    caller who = caller_of(job);
    decide_device device;
    if (!admit_named(job, who.device)) {
        return false;
    }
    if (job->who.device.len) {
        who = (caller){job->who.device, true};
    }
    if (who.device.len == 0) {
        return true;
    }
    godwit_status status = store_read_device(r->store, &r->scratch, scope, who.device, &device);
    if (status == GODWIT_NOT_FOUND) {
        return !who.registered || !admit_refuse(job, STREAM_FORBIDDEN_DEVICE);
    }
    if (status != GODWIT_OK) {
        service_fail(job, status);
        return false;
    }
    return !admit_refuse(job, decide_caller(&device, job->who.user));
}
