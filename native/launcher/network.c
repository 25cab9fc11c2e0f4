#include "network.h"

#include "identity.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ_LIMIT 1000 /* milliseconds */
#define OUR_TYPE "weft"

/* getdents64(2); libc's readdir would take its buffer from the heap. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* False: errno says why not. Opens no device and waits for no pipe. */
static bool read_file(int directory, const char *path, struct network *to)
{
    struct stat is;
    int fd = openat(directory, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    enum reading reading = READ_FAILED;
    int why;

    if (fd < 0)
        return false;
    errno = 0;
    if (fstat(fd, &is) == 0 && S_ISREG(is.st_mode))
        reading = read_to_end(fd, to->text, sizeof to->text, now() + READ_LIMIT, &to->length);
    why = reading == READ_TOO_MUCH ? EFBIG : errno != 0 ? errno : EINVAL;
    close(fd);
    errno = why;
    return reading == READ_ALL;
}

static bool read_name(struct network *of)
{
    struct member name = {.key = "name"};

    return scan_members(of->text, of->length, &name, 1)
           && string_of(&name, of->name, sizeof of->name)
           && is_identifier((unsigned char *)of->name, strlen(of->name));
}

static bool is_configuration(const char *name)
{
    static const char *const suffixes[] = {".conflist", ".conf", ".json"};
    size_t length = strlen(name);

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t tail = strlen(suffixes[i]);
        if (length > tail && strcmp(name + length - tail, suffixes[i]) == 0)
            return true;
    }
    return false;
}

/* The first file of the network by name, or "" where there is none. */
static void search(int directory, const char *name, struct network *with, char *best, size_t room)
{
    _Alignas(struct entry) static char entries[32 * 1024];
    long got;

    *best = '\0';
    while ((got = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(entries + at);

            at += entry->length;
            if (is_configuration(entry->name) && (*best == '\0' || strcmp(entry->name, best) < 0)
                && read_file(directory, entry->name, with) && read_name(with)
                && strcmp(with->name, name) == 0)
                snprintf(best, room, "%.255s", entry->name);
        }
    }
}

static bool find_file(struct network *to, const char *name, char *why, size_t room)
{
    char best[256];
    int directory = open(WEFT_CONF_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory >= 0) {
        search(directory, name, to, best, sizeof best);
        close(directory);
        if (*best != '\0') {
            snprintf(to->file, sizeof to->file, WEFT_CONF_DIR "/%s", best);
            return true;
        }
    }
    snprintf(why, room,
             "no configuration in " WEFT_CONF_DIR " is of the network %.80s; `weft install` writes "
             "that of the network " DEFAULT_NETWORK ", and --conf FILE names another file",
             name);
    return false;
}

bool find_network(struct network *to, const char *name, const char *file, char *why, size_t room)
{
    if (file == NULL && !find_file(to, name, why, room))
        return false;
    if (file != NULL)
        snprintf(to->file, sizeof to->file, "%s", file);
    if (!read_file(AT_FDCWD, to->file, to)) {
        snprintf(why, room, "the network's configuration %.200s cannot be read: %s", to->file,
                 strerror(errno));
        return false;
    }
    if (!read_name(to)) {
        snprintf(why, room, "%.200s is not the configuration of a network: it is one JSON object "
                 "with a `name`", to->file);
        return false;
    }
    if (name == NULL || strcmp(name, to->name) == 0)
        return true;
    snprintf(why, room, "%.200s is of the network %.80s, not of %.80s", to->file, to->name, name);
    return false;
}

bool find_plugin(const struct network *network, struct member *plugin, char *why, size_t room)
{
    struct member of_list[] = {{.key = "plugins"}, {.key = "type"}};
    struct member whole = {.from = network->text, .length = network->length};
    const unsigned char *at, *end;
    char type[MAX_NAME + 1];
    unsigned count = 0;

    scan_members(network->text, network->length, of_list, 2);
    at = whole.from;
    end = at;
    if (of_list[0].from == NULL && string_of(&of_list[1], type, sizeof type)) {
        *plugin = whole; /* the form before lists: the plugin itself */
        count = 1;
    } else if (of_list[0].from != NULL && *of_list[0].from == '[') {
        at = of_list[0].from + 1;
        end = at + of_list[0].length - 2;
    }
    while (cut_element(&at, end, plugin)) {
        struct member of_plugin = {.key = "type"};

        if (!scan_members(plugin->from, plugin->length, &of_plugin, 1)
            || !string_of(&of_plugin, type, sizeof type)) {
            snprintf(why, room, "%.200s: a plugin of it has no `type`", network->file);
            return false;
        }
        if (++count == 1 && strcmp(type, OUR_TYPE) == 0)
            continue;
        break;
    }
    if (count == 1 && strcmp(type, OUR_TYPE) == 0)
        return true;
    if (count == 0)
        snprintf(why, room, "%.200s has no plugins", network->file);
    else
        snprintf(why, room,
                 "%.200s has the plugin %.64s%s; a hook calls weft once and no other plugin: give it "
                 "a list of weft alone by --network or --conf",
                 network->file, type, strcmp(type, OUR_TYPE) == 0 ? " twice" : "");
    return false;
}
