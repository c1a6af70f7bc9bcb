/* The progress line of a sync: counts what passes through the transport, draws it on stderr. */
#include <stdio.h>
#include <unistd.h>

#include "cli/progress.h"

static void draw(progress *p) {
    fprintf(stderr, "\r\033[Ksyncing: %lld request%s, %lld KiB sent, %lld KiB received",
            (long long)p->requests, p->requests == 1 ? "" : "s", (long long)(p->sent_bytes >> 10),
            (long long)(p->received_bytes >> 10));
    fflush(stderr);
    p->shown = true;
}

static void exchange(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    progress *p = context;
    p->requests++;
    p->sent_bytes += (int64_t)request->body_bytes;
    draw(p);
    transport_exchange(p->inner, request, answer);
    p->received_bytes += (int64_t)answer->body_bytes;
    draw(p);
}

void progress_init(progress *p, godwit_host *host, bool wanted) {
    *p = (progress){0};
    if (wanted && isatty(STDERR_FILENO) && transport_create(NULL, &p->inner) == GODWIT_OK) {
        host->context = p;
        host->exchange = exchange;
    }
}

void progress_trust(progress *p, slice ca_file) {
    if (p->inner) {
        transport_trust(p->inner, ca_file);
    }
}

void progress_clear(progress *p) {
    if (p->shown) {
        fputs("\r\033[K", stderr);
        p->shown = false;
    }
}

void progress_deinit(progress *p) {
    progress_clear(p);
    transport_destroy(p->inner);
    p->inner = NULL;
}
