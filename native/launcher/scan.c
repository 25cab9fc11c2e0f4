#include "scan.h"

#include "utf8.h"

#include <stdint.h>
#include <string.h>

struct cursor {
    const unsigned char *at;
    const unsigned char *end;
};

/* Where a string goes while it is read; without `bytes` it is only checked. Unescaping never makes
 * text longer, so a destination as large as the input always suffices. */
struct sink {
    unsigned char *bytes;
    size_t size;
    size_t length;
    bool cut;
};

static void pour(struct sink *into, const unsigned char *bytes, size_t length)
{
    if (into->bytes == NULL)
        return;
    if (length > into->size - into->length) {
        into->cut = true;
        return;
    }
    memcpy(into->bytes + into->length, bytes, length);
    into->length += length;
}

static int peek(const struct cursor *in)
{
    return in->at < in->end ? *in->at : -1;
}

static void skip_space(struct cursor *in)
{
    while (in->at < in->end && memchr(" \t\n\r", *in->at, 4) != NULL)
        in->at++;
}

static bool take(struct cursor *in, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, word, length) != 0)
        return false;
    in->at += length;
    return true;
}

static int hex_quad(struct cursor *in)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(in);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
        in->at++;
    }
    return value;
}

static bool pour_point(struct sink *into, uint32_t point)
{
    unsigned char raw[4];
    size_t length;

    if (point < 0x80) {
        raw[0] = (unsigned char)point;
        length = 1;
    } else if (point < 0x800) {
        raw[0] = (unsigned char)(0xC0 | point >> 6);
        raw[1] = (unsigned char)(0x80 | (point & 0x3F));
        length = 2;
    } else if (point < 0x10000) {
        raw[0] = (unsigned char)(0xE0 | point >> 12);
        raw[1] = (unsigned char)(0x80 | (point >> 6 & 0x3F));
        raw[2] = (unsigned char)(0x80 | (point & 0x3F));
        length = 3;
    } else {
        raw[0] = (unsigned char)(0xF0 | point >> 18);
        raw[1] = (unsigned char)(0x80 | (point >> 12 & 0x3F));
        raw[2] = (unsigned char)(0x80 | (point >> 6 & 0x3F));
        raw[3] = (unsigned char)(0x80 | (point & 0x3F));
        length = 4;
    }
    pour(into, raw, length);
    return true;
}

/* After a backslash. A surrogate without its other half is refused: it is no character. */
static bool escape(struct cursor *in, struct sink *into)
{
    static const char letters[] = "\"\\/bfnrt";
    static const unsigned char meant[] = "\"\\/\b\f\n\r\t";
    int c = peek(in);
    const char *letter = c > 0 ? strchr(letters, c) : NULL;
    int high, low;

    if (letter != NULL) {
        in->at++;
        pour(into, &meant[letter - letters], 1);
        return true;
    }
    if (c != 'u')
        return false;
    in->at++;
    high = hex_quad(in);
    if (high < 0 || (high >= 0xDC00 && high <= 0xDFFF))
        return false;
    if (high < 0xD800 || high > 0xDBFF)
        return pour_point(into, (uint32_t)high);
    if (!take(in, "\\u"))
        return false;
    low = hex_quad(in);
    if (low < 0xDC00 || low > 0xDFFF)
        return false;
    return pour_point(into, 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00));
}

static bool string(struct cursor *in, struct sink *into)
{
    if (peek(in) != '"')
        return false;
    in->at++;
    while (in->at < in->end) {
        size_t length;

        if (*in->at == '"') {
            in->at++;
            return true;
        }
        if (*in->at == '\\') {
            in->at++;
            if (!escape(in, into))
                return false;
            continue;
        }
        length = *in->at < 0x20 ? 0 : utf8_length(in->at, in->end);
        if (length == 0)
            return false;
        pour(into, in->at, length);
        in->at += length;
    }
    return false;
}

static bool digits(struct cursor *in)
{
    const unsigned char *from = in->at;
    while (peek(in) >= '0' && peek(in) <= '9')
        in->at++;
    return in->at > from;
}

static bool number(struct cursor *in)
{
    if (peek(in) == '-')
        in->at++;
    if (peek(in) == '0')
        in->at++;
    else if (!digits(in))
        return false;
    if (peek(in) == '.') {
        in->at++;
        if (!digits(in))
            return false;
    }
    if (peek(in) == 'e' || peek(in) == 'E') {
        in->at++;
        if (peek(in) == '+' || peek(in) == '-')
            in->at++;
        return digits(in);
    }
    return true;
}

/* A value that is neither object nor array. */
static bool scalar(struct cursor *in)
{
    struct sink nowhere = {0};

    if (peek(in) == '"')
        return string(in, &nowhere);
    return take(in, "null") || take(in, "true") || take(in, "false") || number(in);
}

static bool same_letters(const unsigned char *bytes, size_t length, const char *lower)
{
    if (length != strlen(lower))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = bytes[i];
        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c - 'A' + 'a');
        if (c != (unsigned char)lower[i])
            return false;
    }
    return true;
}

/* A key and its colon; points `keep` at the member that wants its value. */
static bool key_of(struct cursor *in, unsigned depth, struct member *wanted, size_t count,
                   struct member **keep)
{
    unsigned char key[16];
    struct sink into = {.bytes = key, .size = sizeof key};

    skip_space(in);
    if (!string(in, &into))
        return false;
    skip_space(in);
    if (!take(in, ":"))
        return false;
    *keep = NULL;
    if (depth != 1 || into.cut)
        return true;
    for (size_t i = 0; i < count; i++)
        if (same_letters(key, into.length, wanted[i].key))
            *keep = &wanted[i];
    return true;
}

static void found(struct member *keep, const unsigned char *from, size_t length)
{
    if (keep == NULL)
        return;
    keep->from = from;
    keep->length = length;
}

bool scan_members(const unsigned char *data, size_t length, struct member *wanted, size_t count)
{
    struct cursor in = {.at = data, .end = data + length};
    struct member *keep = NULL, *open = NULL; /* whose value comes next; whose is being read */
    uint64_t objects = 0; /* bit n: what is open at level n is an object, not an array */
    unsigned depth = 0;

    for (size_t i = 0; i < count; i++)
        found(&wanted[i], NULL, 0);
    skip_space(&in);
    if (peek(&in) != '{')
        return false;
    for (;;) {
        bool opened = false;
        const unsigned char *from;
        int c;

        skip_space(&in);
        from = in.at;
        c = peek(&in);
        if (c == '{' || c == '[') {
            found(keep, from, 0);
            if (keep != NULL)
                open = keep;
            if (depth == MAX_DEPTH)
                return false;
            objects = (objects & ~(1ULL << depth)) | (uint64_t)(c == '{') << depth;
            depth++;
            in.at++;
            opened = true;
        } else if (scalar(&in)) {
            found(keep, from, (size_t)(in.at - from));
        } else {
            return false;
        }
        keep = NULL;
        for (;;) { /* closing brackets, then what leads to the next value */
            bool object = objects >> (depth - 1) & 1;

            skip_space(&in);
            c = peek(&in);
            if (c == (object ? '}' : ']')) {
                in.at++;
                opened = false;
                if (--depth > 0) {
                    if (depth == 1 && open != NULL) {
                        open->length = (size_t)(in.at - open->from);
                        open = NULL;
                    }
                    continue;
                }
                skip_space(&in);
                return in.at == in.end;
            }
            if (!opened && !take(&in, ","))
                return false;
            if (object && !key_of(&in, depth, wanted, count, &keep))
                return false;
            break;
        }
    }
}

struct text text_of(const struct member *member, unsigned char *bytes, size_t size)
{
    struct cursor in = {.at = member->from, .end = member->from + member->length};
    struct sink into = {.bytes = bytes, .size = size};

    if (member->from == NULL || (member->length == 4 && memcmp(member->from, "null", 4) == 0))
        return (struct text){.presence = ABSENT};
    if (!string(&in, &into) || into.cut)
        return (struct text){.presence = NOT_TEXT};
    return (struct text){.presence = TEXT, .length = into.length};
}

bool string_of(const struct member *member, char *string, size_t size)
{
    struct text text = text_of(member, (unsigned char *)string, size - 1);

    string[text.length] = '\0';
    return text.presence == TEXT && strlen(string) == text.length;
}

bool cut_element(const unsigned char **at, const unsigned char *end, struct member *element)
{
    bool quoted = false;
    unsigned depth = 0;

    while (*at < end && memchr(" \t\n\r,", **at, 5) != NULL)
        (*at)++;
    if (*at >= end)
        return false;
    element->from = *at;
    for (; *at < end; (*at)++) {
        unsigned char c = **at;

        if (quoted && c == '\\')
            (*at)++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '['))
            depth++;
        else if (!quoted && (c == '}' || c == ']'))
            depth--;
        else if (!quoted && c == ',' && depth == 0)
            break;
    }
    element->length = (size_t)(*at - element->from);
    return true;
}

bool scan(const unsigned char *data, size_t length, struct configuration *to)
{
    struct member members[] = {{.key = "name"}, {.key = "cniversion"}};
    bool whole = scan_members(data, length, members, 2);

    to->name = text_of(&members[0], to->name_bytes, sizeof to->name_bytes);
    to->version = text_of(&members[1], to->version_bytes, sizeof to->version_bytes);
    return whole;
}

const char *version_of(const struct configuration *found)
{
    static char version[MAX_VERSION + 1];

    if (found->version.presence != TEXT || found->version.length == 0
        || found->version.length > MAX_VERSION)
        return CNI_NEWEST;
    for (size_t i = 0; i < found->version.length; i++) {
        unsigned char c = found->version_bytes[i];
        bool fits = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                    || c == '.' || c == '-' || c == '+';
        if (!fits)
            return CNI_NEWEST;
        version[i] = (char)c;
    }
    version[found->version.length] = '\0';
    return version;
}
