/* Method, path and query of a request, divided by line ends: a route is found or refused, and
 * decoded parameters are valid text. */
#include "fuzz.h"

#include "core/json.h"
#include "server/route.h"

static slice take_line(const uint8_t **data, size_t *size) {
    const uint8_t *end = *size ? memchr(*data, '\n', *size) : NULL;
    size_t length = end ? (size_t)(end - *data) : *size;
    slice line = fuzz_slice(*data, length);
    *data += end ? length + 1 : length;
    *size -= end ? length + 1 : length;
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    slice method = take_line(&data, &size);
    slice path = take_line(&data, &size);
    const route *r = NULL;
    int status = route_find(method, path, &r);
    FUZZ_CHECK(status == 200 || status == 404 || status == 405);
    if (status == 200) {
        service_job job;
        service_job_init(&job, VERB_CHANGES);
        const char *reason = NULL;
        godwit_status found = route_query(r, fuzz_slice(data, size), &job, &reason);
        if (found == GODWIT_OK) {
            const slice all[] = {job.q_scope, job.q_cursor, job.q_device, job.q_tables,
                                 job.q_limit, job.q_wait,   job.q_token};
            for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
                FUZZ_CHECK(json_utf8_valid(all[i]) &&
                           !memchr(all[i].ptr ? all[i].ptr : "", 0, all[i].len));
            }
        } else {
            FUZZ_CHECK(found == GODWIT_NOMEM || reason);
        }
        service_job_deinit(&job);
    }
    return 0;
}
