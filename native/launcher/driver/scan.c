/* Feeds many texts to the scanner in one process, for tests.
 *
 * Standard input: records of a four-byte little-endian length and that many bytes. Standard output:
 * a line for each: whether it is an object, then name and version as "-" (absent), "!" (no text) or
 * "=" and the bytes in hex. Each text is copied to the end of a mapping followed by an unreadable
 * page, so that reading one byte too far ends the process. With arguments NETWORK CONTAINER IFNAME:
 * prints the digest and the host link's name instead.
 */
#include "bytes.h"
#include "identity.h"
#include "scan.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static struct configuration found;

static void show(const struct text *text, const unsigned char *bytes)
{
    if (text->presence != TEXT) {
        printf(" %s", text->presence == ABSENT ? "-" : "!");
        return;
    }
    printf(" =");
    for (size_t i = 0; i < text->length; i++)
        printf("%02x", bytes[i]);
}

int main(int count, char **arguments)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = MAX_STDIN;
    unsigned char size[4];
    unsigned char *map;

    if (count == 4) {
        struct identity one;
        identify((unsigned char *)arguments[1], strlen(arguments[1]), arguments[2], arguments[3],
                 &one);
        printf("%s %s\n", one.hex, one.link);
        return 0;
    }
    map = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + room, page, PROT_NONE) < 0)
        return 2;
    while (fread(size, sizeof size, 1, stdin) == 1) {
        size_t length = get_number(size, 4);
        unsigned char *text = map + room - length;

        if (length > room || (length > 0 && fread(text, length, 1, stdin) != 1))
            return 2;
        printf("%d", scan(text, length, &found));
        show(&found.name, found.name_bytes);
        show(&found.version, found.version_bytes);
        printf("\n");
    }
    return 0;
}
