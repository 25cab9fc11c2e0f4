/* An attachment's identity and what is derived from it.
 *
 * Identity = network NUL containerID NUL ifname, hashed with SHA-256 (FIPS 180-4). The queue's
 * file name is the digest in hex; the host link's name is "wf" and the first 13 characters of the
 * digest in lower-case base32 (RFC 4648). src/weft/model/attachment.py derives the same.
 */
#ifndef WEFT_IDENTITY_H
#define WEFT_IDENTITY_H

#include <stddef.h>

#define DIGEST_BYTES 32
#define HEX_CHARACTERS (2 * DIGEST_BYTES)
#define LINK_NAME 15

struct identity {
    unsigned char digest[DIGEST_BYTES];
    char hex[HEX_CHARACTERS + 1];
    char link[LINK_NAME + 1];
};

void identify(const unsigned char *network, size_t network_length, const char *container,
              const char *ifname, struct identity *out);

#endif
