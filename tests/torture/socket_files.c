/* What the daemon of the test reads: schema, settings, and a certificate made on the spot. See
 * socket_world.h. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "torture/socket_world.h"

static const char tables[] =
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);\n"
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"
    " body TEXT, slug TEXT UNIQUE);\n";
static const char settings[] = "[table pins]\npolicy.title = manual\npolicy.n = counter\n";

static FILE *create(const char *folder, const char *name) {
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = n > 0 && n < PATH_BYTES ? fopen(path, "w") : NULL;
    if (!out || chmod(path, 0600) != 0) {
        world_fail("%s/%s can't be written", folder, name);
    }
    return out;
}

static void write_text(const char *folder, const char *name, const char *text) {
    FILE *out = create(folder, name);
    if (fputs(text, out) < 0 || fclose(out) != 0) {
        world_fail("%s/%s can't be written", folder, name);
    }
}

static void add_name(X509 *certificate) {
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:godwit.test");
    X509_EXTENSION *authority =
        X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    if (!names || !authority || !X509_add_ext(certificate, names, -1) ||
        !X509_add_ext(certificate, authority, -1)) {
        world_fail("no certificate can be made");
    }
    X509_EXTENSION_free(names);
    X509_EXTENSION_free(authority);
}

/* Signed by itself; good for a day around now. */
static void write_certificate(const char *folder) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    if (!key || !certificate) {
        world_fail("no key can be made");
    }
    X509_NAME *name = X509_get_subject_name(certificate);
    bool ok = X509_set_version(certificate, 2) == 1 &&
              ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1 &&
              X509_gmtime_adj(X509_getm_notBefore(certificate), -43200) &&
              X509_gmtime_adj(X509_getm_notAfter(certificate), 10 * 86400) &&
              X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                         (const unsigned char *)"godwit.test", -1, -1, 0) == 1 &&
              X509_set_issuer_name(certificate, name) == 1 &&
              X509_set_pubkey(certificate, key) == 1;
    add_name(certificate);
    ok = ok && X509_sign(certificate, key, EVP_sha256()) > 0;
    FILE *public = create(folder, "cert.pem"), *private = create(folder, "key.pem");
    ok = ok && PEM_write_X509(public, certificate) == 1 &&
         PEM_write_PrivateKey(private, key, NULL, NULL, 0, NULL, NULL) == 1;
    if (fclose(public) != 0 || fclose(private) != 0 || !ok) {
        world_fail("no certificate can be written");
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
}

void world_files(const char *folder) {
    write_text(folder, "schema.sql", tables);
    write_text(folder, "config.ini", settings);
    write_certificate(folder);
}
