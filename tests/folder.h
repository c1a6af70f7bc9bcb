/* A new, empty folder for a test's files, under TMPDIR where one is set. The caller removes it. */
#ifndef GODWIT_TESTS_FOLDER_H
#define GODWIT_TESTS_FOLDER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Writes the folder's path into path (capacity bytes); false: it could not be made. */
static inline bool folder_make(char *path, size_t capacity) {
    const char *root = getenv("TMPDIR");
    int n = snprintf(path, capacity, "%s/godwit-unit-XXXXXX", root && *root ? root : "/tmp");
    return n > 0 && (size_t)n < capacity && mkdtemp(path) != NULL;
}

#endif
