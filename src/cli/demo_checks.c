/* What every step of the demo needs: claims that are checked, and devices brought together. */
#include <stdarg.h>

#include "cli/cli.h"
#include "cli/demo.h"

void demo_check(demo_world *w, bool ok, const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("    %s%s%s ", cli_style_on(stdout, ok ? CLI_GREEN : CLI_RED), ok ? "✓" : "✗",
           cli_style_off(stdout));
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    fflush(stdout);
    w->checks++;
    w->failed += !ok;
}

/* Each device twice is enough for what the demo does. */
bool demo_sync_all(demo_world *w, const int *order) {
    for (int i = 0; i < 2 * DEMO_DEVICES; i++) {
        int device = order[i % DEMO_DEVICES];
        int code = demo_sync(w, device);
        if (code != 0) {
            snprintf(w->why, sizeof w->why, "%s's sync exited with %d", w->devices[device].name,
                     code);
            return false;
        }
    }
    return true;
}

bool demo_text_everywhere(demo_world *w, const char *sql, const char *expected) {
    char text[256];
    bool same = true;
    for (int i = 0; i < DEMO_DEVICES; i++) {
        demo_device_text(w, i, sql, text, sizeof text);
        same = same && strcmp(text, expected) == 0;
    }
    demo_server_text(w, sql, text, sizeof text);
    return same && strcmp(text, expected) == 0;
}
