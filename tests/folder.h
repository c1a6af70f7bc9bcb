/* A new, empty folder for a test's files, or one new file, under TMPDIR where one is set. The
 * caller removes it. */
#ifndef GODWIT_TESTS_FOLDER_H
#define GODWIT_TESTS_FOLDER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static inline bool folder_template(char *path, size_t capacity) {
    const char *root = getenv("TMPDIR");
    int n = snprintf(path, capacity, "%s/godwit-unit-XXXXXX", root && *root ? root : "/tmp");
    return n > 0 && (size_t)n < capacity;
}

/* Writes the folder's path into path (capacity bytes); false: it could not be made. */
static inline bool folder_make(char *path, size_t capacity) {
    return folder_template(path, capacity) && mkdtemp(path) != NULL;
}

/* The same with one file, open for writing; NULL: it could not be made. */
static inline FILE *folder_file(char *path, size_t capacity) {
    int fd = folder_template(path, capacity) ? mkstemp(path) : -1;
    return fd < 0 ? NULL : fdopen(fd, "w");
}

#endif
