/* What a data folder holds besides the store: the signing key and the lock.
 *
 *   DATA/secret   64 hex digits of a random key, mode 0600; its text is the HS256 key
 *   DATA/lock     held by fcntl for as long as a server runs over the folder
 */
#ifndef SERVER_SECRET_H
#define SERVER_SECRET_H

#include "core/bytes.h"

/* Makes the folder (0700) unless it is there, and checks that it can be written. message gets the
 * reason. */
godwit_status secret_folder(const char *data, char message[512]) MUST_USE;
/* Takes DATA/lock. BUSY: another process holds it (message names its number). *fd: keep open;
 * closing it gives the lock back. */
godwit_status secret_lock(const char *data, int *fd, char message[512]) MUST_USE;
/* Reads the key from `file` into *key. It must be at least 32 bytes after its line end is taken
 * off, and must not be readable by others. NOT_FOUND: no such file. */
godwit_status secret_read(const char *file, bytes *key, char message[512]) MUST_USE;
/* The same for DATA/secret, which is made when absent; *made says so. */
godwit_status secret_load_or_make(const char *data, bytes *key, bool *made,
                                  char message[512]) MUST_USE;

#endif
