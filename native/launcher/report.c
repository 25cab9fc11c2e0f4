#include "report.h"

#include "protocol.h"
#include "stream.h"
#include "utf8.h"

static void put_decimal(struct buffer *out, int value)
{
    char digits[12];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put_bytes(out, digits + at, sizeof digits - at);
}

void put_json_text(struct buffer *out, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + strlen(text);

    put_text(out, "\"");
    while (at < end) {
        size_t length = utf8_length(at, end);

        if (length == 0) {
            put_text(out, "\\ufffd");
            at++;
        } else if (*at == '"' || *at == '\\') {
            char pair[2] = {'\\', (char)*at++};
            put_bytes(out, pair, 2);
        } else if (*at < 0x20 || *at == 0x7F) {
            char escaped[6] = {'\\', 'u', '0', '0', hex[*at >> 4], hex[*at & 15]};
            put_bytes(out, escaped, 6);
            at++;
        } else {
            put_bytes(out, at, length);
            at += length;
        }
    }
    put_text(out, "\"");
}

int report_error(const char *version, int code, const char *reason, const char *message)
{
    unsigned char bytes[8192];
    struct buffer out = {.data = bytes, .size = sizeof bytes};

    put_text(&out, "{\"cniVersion\":");
    put_json_text(&out, version);
    put_text(&out, ",\"code\":");
    put_decimal(&out, code);
    put_text(&out, ",\"msg\":");
    put_json_text(&out, message);
    put_text(&out, ",\"details\":\"weft explain ");
    put_text(&out, reason);
    put_text(&out, "\"}\n");
    write_all(1, bytes, out.used, now() + STDOUT_LIMIT);
    return 1;
}

int report_versions(const char *version)
{
    static const char *const versions[] = {CNI_VERSIONS};
    unsigned char bytes[512];
    struct buffer out = {.data = bytes, .size = sizeof bytes};

    put_text(&out, "{\"cniVersion\":");
    put_json_text(&out, version);
    put_text(&out, ",\"supportedVersions\":[");
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        if (i > 0)
            put_text(&out, ",");
        put_json_text(&out, versions[i]);
    }
    put_text(&out, "]}\n");
    return write_all(1, bytes, out.used, now() + STDOUT_LIMIT) ? 0 : 1;
}

int report(const char *line)
{
    return write_all(1, line, strlen(line), now() + STDOUT_LIMIT) ? 0 : 1;
}

void note(const char *message)
{
    unsigned char bytes[1024];
    struct buffer out = {.data = bytes, .size = sizeof bytes};

    put_text(&out, "weft: ");
    put_text(&out, message);
    put_text(&out, "\n");
    write_all(2, bytes, out.used, now() + 100);
}

/* As much of a text as leaves `spare` bytes free; what would move a terminal's cursor is a blank. */
static void put_words(struct buffer *out, const char *text, size_t spare)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + strlen(text);

    while (at < end) {
        size_t length = utf8_length(at, end);

        if (out->used + 4 + spare > out->size) {
            put_text(out, "...");
            return;
        }
        if (length == 0 || *at < 0x20 || *at == 0x7F) {
            put_text(out, length == 0 ? "?" : " ");
            at++;
            continue;
        }
        put_bytes(out, at, length);
        at += length;
    }
}

void tell(const char *message, const char *details)
{
    unsigned char bytes[4096];
    struct buffer out = {.data = bytes, .size = sizeof bytes};

    put_text(&out, "weft: ");
    put_words(&out, message, 1024);
    if (*details != '\0') {
        put_text(&out, " (");
        put_words(&out, details, 8);
        put_text(&out, ")");
    }
    put_text(&out, "\n");
    write_all(2, bytes, out.used, now() + 100);
}
