#include "identity.h"

#include <stdint.h>
#include <string.h>

struct sha256 {
    uint32_t state[8];
    uint64_t length;
    unsigned char block[64];
    size_t used;
};

/* Fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t value, unsigned by)
{
    return value >> by | value << (32 - by);
}

static void compress(struct sha256 *hash)
{
    uint32_t words[64];
    uint32_t v[8];

    for (int i = 0; i < 16; i++) {
        const unsigned char *b = hash->block + 4 * i;
        words[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = words[i - 15], y = words[i - 2];
        words[i] = words[i - 16] + words[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3)
                   + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    memcpy(v, hash->state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        uint32_t one = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + choice
                       + rounds[i] + words[i];
        uint32_t two = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) + majority;

        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        hash->state[i] += v[i];
}

static void absorb(struct sha256 *hash, const void *data, size_t length)
{
    const unsigned char *at = data;

    hash->length += length;
    while (length > 0) {
        size_t part = sizeof hash->block - hash->used;
        if (part > length)
            part = length;
        memcpy(hash->block + hash->used, at, part);
        hash->used += part;
        at += part;
        length -= part;
        if (hash->used == sizeof hash->block) {
            compress(hash);
            hash->used = 0;
        }
    }
}

static void finish(struct sha256 *hash, unsigned char *digest)
{
    uint64_t bits = hash->length * 8;
    unsigned char tail[8];

    for (int i = 0; i < 8; i++)
        tail[i] = (unsigned char)(bits >> (56 - 8 * i));
    absorb(hash, "\x80", 1);
    while (hash->used != 56)
        absorb(hash, "", 1);
    absorb(hash, tail, 8);
    for (int i = 0; i < DIGEST_BYTES; i++)
        digest[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

void identify(const unsigned char *network, size_t network_length, const char *container,
              const char *ifname, struct identity *out)
{
    static const char hex[] = "0123456789abcdef";
    static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
    struct sha256 hash = {
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                  0x1f83d9ab, 0x5be0cd19},
    };

    absorb(&hash, network, network_length);
    absorb(&hash, "", 1);
    absorb(&hash, container, strlen(container));
    absorb(&hash, "", 1);
    absorb(&hash, ifname, strlen(ifname));
    finish(&hash, out->digest);

    for (int i = 0; i < DIGEST_BYTES; i++) {
        out->hex[2 * i] = hex[out->digest[i] >> 4];
        out->hex[2 * i + 1] = hex[out->digest[i] & 15];
    }
    out->hex[HEX_CHARACTERS] = '\0';
    memcpy(out->link, "wf", 2);
    for (int i = 0; i < LINK_NAME - 2; i++) {
        int bit = 5 * i;
        unsigned pair = (unsigned)out->digest[bit / 8] << 8 | out->digest[bit / 8 + 1];
        out->link[2 + i] = base32[pair >> (11 - bit % 8) & 31];
    }
    out->link[LINK_NAME] = '\0';
}

bool is_identifier(const unsigned char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (i == 0 || (c != '_' && c != '.' && c != '-')))
            return false;
    }
    return length > 0;
}

bool is_link_name(const char *name)
{
    static const char *const taken[] = {".", "..", "lo", "all", "default"};

    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strcmp(name, taken[i]) == 0)
            return false;
    return strlen(name) <= 15 && strpbrk(name, "/:% \t\n\v\f\r") == NULL;
}
