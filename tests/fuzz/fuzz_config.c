/* A configuration file: settings and [table] sections are read or refused with a reason. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "server/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int file = memfd_create("config", 0);
    FUZZ_CHECK(file >= 0 && write(file, data, size) == (ssize_t)size);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    arena a;
    arena_init(&a, NULL, 0);
    config_texts flags = {0};
    config settings;
    char message[512] = "";
    godwit_status status = config_load(&a, &flags, NULL, path, &settings, message);
    if (status == GODWIT_OK) {
        FUZZ_CHECK(settings.threads > 0 && settings.port[0] && settings.data);
    } else {
        FUZZ_CHECK(status == GODWIT_NOMEM || message[0]);
    }
    arena_deinit(&a);
    close(file);
    return 0;
}
