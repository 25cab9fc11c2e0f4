/* Finds the two top-level keys of a network configuration that the launcher itself needs.
 *
 * A complete check of the JSON text (RFC 8259) without recursion: nesting is a bit per level, and
 * deeper than MAX_DEPTH is refused just as the agent refuses it. Keys match in any case and the
 * last of several wins, as in the Go libraries. What was found before an error stays found: an
 * error about a torn configuration still names the caller's version.
 */
#ifndef WEFT_SCAN_H
#define WEFT_SCAN_H

#include "protocol.h"

#include <stdbool.h>
#include <stddef.h>

#define MAX_DEPTH 64
#define MAX_VERSION 32

enum presence { ABSENT, TEXT, NOT_TEXT };

struct text {
    enum presence presence;
    size_t length;
};

struct configuration {
    struct text name;
    unsigned char name_bytes[MAX_STDIN];
    struct text version;
    unsigned char version_bytes[MAX_STDIN];
};

/* True when `data` is one JSON object. */
bool scan(const unsigned char *data, size_t length, struct configuration *found);

/* The version as a C string: the caller's when it looks like one, else the newest. */
const char *version_of(const struct configuration *found);

#endif
