/* Bounded output buffers and little-endian integers.
 *
 * Every byte the launcher builds (frames, JSON) goes through `struct buffer`: it never grows, and
 * once something did not fit, `full` stays set and nothing more is taken. No heap anywhere.
 */
#ifndef WEFT_BYTES_H
#define WEFT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buffer {
    unsigned char *data;
    size_t size;
    size_t used;
    bool full;
};

static inline void put_bytes(struct buffer *out, const void *data, size_t length)
{
    if (out->full || length > out->size - out->used) {
        out->full = true;
        return;
    }
    if (length > 0)
        memcpy(out->data + out->used, data, length);
    out->used += length;
}

static inline void put_text(struct buffer *out, const char *text)
{
    put_bytes(out, text, strlen(text));
}

/* The lowest `width` bytes of `value`, least significant first. */
static inline void put_number(struct buffer *out, uint64_t value, unsigned width)
{
    unsigned char raw[8];
    for (unsigned i = 0; i < width; i++)
        raw[i] = (unsigned char)(value >> (8 * i));
    put_bytes(out, raw, width);
}

static inline uint64_t get_number(const unsigned char *from, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

#endif
