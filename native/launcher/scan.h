/* Finds the top-level keys of a JSON object that the launcher itself needs.
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

/* A key of the outermost object and where its value stands; `from` NULL: there is no such key.
 * Without a length the value is an object or array that is not whole. */
struct member {
    const char *key; /* in lower case, at most 15 letters */
    const unsigned char *from;
    size_t length;
};

struct configuration {
    struct text name;
    unsigned char name_bytes[MAX_STDIN];
    struct text version;
    unsigned char version_bytes[MAX_STDIN];
};

/* True when `data` is one JSON object; fills in the members asked for. */
bool scan_members(const unsigned char *data, size_t length, struct member *wanted, size_t count);

/* What a member's value says; a string is unescaped into `bytes` of that size. One that does not
 * fit is NOT_TEXT, and so is one with a NUL where `bytes` is to be a C string. */
struct text text_of(const struct member *member, unsigned char *bytes, size_t size);
bool string_of(const struct member *member, char *string, size_t size);

/* Cuts the next element off what is within the brackets of an array that is well-formed; false:
 * there is none. */
bool cut_element(const unsigned char **at, const unsigned char *end, struct member *element);

/* True when `data` is one JSON object; finds what a network configuration must have. */
bool scan(const unsigned char *data, size_t length, struct configuration *found);

/* The version as a C string: the caller's when it looks like one, else the newest. */
const char *version_of(const struct configuration *found);

#endif
