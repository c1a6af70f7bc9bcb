/* Files of the data folder. A new secret is written to a temporary name, synced and linked into
 * place, so that a crash leaves either no secret or a whole one, and two starters agree on one. */
#include "server/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "server/keys.h"

#define SECRET_FILE_BYTES_MAX 4096

static godwit_status fail(char message[512], godwit_status status, const char *path,
                          const char *what) {
    snprintf(message, 512, "%.300s: %s", path, what);
    return status;
}

static bool join(char out[PATH_MAX], const char *data, const char *name) {
    int len = snprintf(out, PATH_MAX, "%s/%s", data, name);
    return len > 0 && len < PATH_MAX;
}

godwit_status secret_folder(const char *data, char message[512]) {
    struct stat info;
    if (mkdir(data, 0700) != 0 && errno != EEXIST) {
        snprintf(message, 512,
                 "the data folder %.300s can't be made: %s; give another with --data DIR", data,
                 strerror(errno));
        return GODWIT_IO;
    }
    if (stat(data, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return fail(message, GODWIT_IO, data, "not a folder; give another with --data DIR");
    }
    if (access(data, R_OK | W_OK | X_OK) != 0) {
        return fail(message, GODWIT_READONLY, data,
                    "the data folder can't be written; check its owner and mode, or give another "
                    "with --data DIR");
    }
    return GODWIT_OK;
}

godwit_status secret_lock(const char *data, int *fd, char message[512]) {
    char path[PATH_MAX];
    *fd = -1;
    if (!join(path, data, "lock")) {
        return fail(message, GODWIT_LIMIT, data, "path too long");
    }
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        return fail(message, GODWIT_IO, path, strerror(errno));
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(file, F_SETLK, &lock) == 0) {
        *fd = file;
        return GODWIT_OK;
    }
    bool held = errno == EACCES || errno == EAGAIN;
    godwit_status status = held ? GODWIT_BUSY : GODWIT_IO;
    if (!held) {
        status = fail(message, status, path, strerror(errno));
    } else {
        long holder = fcntl(file, F_GETLK, &lock) == 0 ? (long)lock.l_pid : 0;
        snprintf(message, 512,
                 "another server (process %ld) works on %.300s; stop it or give another folder "
                 "with --data DIR",
                 holder, data);
    }
    close(file);
    return status;
}

static godwit_status read_all(int file, const char *path, bytes *key, char message[512]) {
    char buffer[SECRET_FILE_BYTES_MAX + 1];
    size_t len = 0;
    ssize_t got;
    do {
        got = read(file, buffer + len, sizeof buffer - len);
        len += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && len < sizeof buffer) || (got < 0 && errno == EINTR));
    godwit_status status = GODWIT_OK;
    if (got < 0) {
        status = fail(message, GODWIT_IO, path, strerror(errno));
    } else if (len > SECRET_FILE_BYTES_MAX) {
        status = fail(message, GODWIT_LIMIT, path, "too long for a secret");
    } else {
        while (len > 0 && (buffer[len - 1] == '\n' || buffer[len - 1] == '\r')) {
            len--;
        }
        if (len < KEY_SECRET_BYTES_MIN) {
            status = fail(message, GODWIT_INVALID, path, "a secret needs at least 32 bytes");
        } else {
            bytes_add(key, buffer, len);
            status = key->failed ? GODWIT_NOMEM : GODWIT_OK;
        }
    }
    OPENSSL_cleanse(buffer, sizeof buffer);
    return status;
}

godwit_status secret_read(const char *path, bytes *key, char message[512]) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return fail(message, errno == ENOENT ? GODWIT_NOT_FOUND : GODWIT_IO, path, strerror(errno));
    }
    struct stat info;
    godwit_status status;
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = fail(message, GODWIT_IO, path, "not a file");
    } else if (info.st_mode & (S_IRWXO | S_IWGRP)) {
        status = fail(message, GODWIT_INVALID, path,
                      "others can read or write this secret; chmod 600 it");
    } else {
        status = read_all(file, path, key, message);
    }
    close(file);
    return status;
}

static bool write_all(int file, const char *data, size_t len) {
    while (len > 0) {
        ssize_t done = write(file, data, len);
        if (done < 0 && errno != EINTR) {
            return false;
        }
        if (done > 0) {
            data += done;
            len -= (size_t)done;
        }
    }
    return fsync(file) == 0;
}

static void sync_folder(const char *data) {
    int folder = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        (void)fsync(folder);
        close(folder);
    }
}

static godwit_status make(const char *data, const char *path, char message[512]) {
    char spare[PATH_MAX], name[64];
    unsigned char key[32];
    snprintf(name, sizeof name, ".secret.%ld", (long)getpid());
    if (!join(spare, data, name)) {
        return fail(message, GODWIT_LIMIT, data, "path too long");
    }
    if (RAND_bytes(key, sizeof key) != 1) {
        return fail(message, GODWIT_IO, path, "no randomness for a secret");
    }
    bytes text;
    bytes_init(&text, NULL, 0);
    bytes_hex(&text, key, sizeof key);
    bytes_char(&text, '\n');
    godwit_status status = GODWIT_OK;
    int file = open(spare, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 || text.failed || !write_all(file, text.ptr, text.len)) {
        status = fail(message, GODWIT_IO, spare, strerror(errno));
    } else if (link(spare, path) != 0 && errno != EEXIST) {
        status = fail(message, GODWIT_IO, path, strerror(errno));
    }
    if (file >= 0) {
        close(file);
        (void)unlink(spare);
        sync_folder(data);
    }
    OPENSSL_cleanse(key, sizeof key);
    if (text.ptr) {
        OPENSSL_cleanse(text.ptr, text.len);
    }
    bytes_deinit(&text);
    return status;
}

godwit_status secret_load_or_make(const char *data, bytes *key, bool *made, char message[512]) {
    char path[PATH_MAX];
    *made = false;
    if (!join(path, data, "secret")) {
        return fail(message, GODWIT_LIMIT, data, "path too long");
    }
    godwit_status status = secret_read(path, key, message);
    if (status == GODWIT_NOT_FOUND) {
        status = make(data, path, message);
        *made = status == GODWIT_OK;
        status = status == GODWIT_OK ? secret_read(path, key, message) : status;
    }
    return status;
}
