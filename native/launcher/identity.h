/* An attachment's identity and what is derived from it.
 *
 * Identity = network NUL containerID NUL ifname, hashed with SHA-256 (FIPS 180-4). The queue's
 * file name is the digest in hex; the host link's name is "wf" and the first 13 characters of the
 * digest in lower-case base32 (RFC 4648). src/weft/model/attachment.py derives the same.
 */
#ifndef WEFT_IDENTITY_H
#define WEFT_IDENTITY_H

#include <stdbool.h>
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

/* Whether CNI takes it as a container's id or a network's name. */
bool is_identifier(const unsigned char *text, size_t length);

/* What the kernel and the agent take as an interface's name; "all" and "default" are directories
 * of sysctls and "lo" is every namespace's own. */
bool is_link_name(const char *name);

#endif
