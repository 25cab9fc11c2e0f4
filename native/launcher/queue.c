#include "queue.h"

#include "identity.h"
#include "protocol.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory that only its owner, who is us or root, can change. */
static int open_own_directory(int parent, const char *path)
{
    struct stat is;
    int why = EPERM;
    int fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -1;
    if (fstat(fd, &is) < 0)
        why = errno;
    else if ((is.st_uid == 0 || is.st_uid == geteuid()) && (is.st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return fd;
    close(fd);
    errno = why;
    return -1;
}

/* With `make` the directories are made where they are missing. What kept them from being made is
 * what errno says then, not that they are missing. */
static int open_queue(bool make)
{
    int run, queue, why = 0;

    if (make && mkdir(WEFT_RUN_DIR, 0700) < 0 && errno != EEXIST)
        why = errno;
    run = open_own_directory(AT_FDCWD, WEFT_RUN_DIR);
    if (run >= 0 && make && mkdirat(run, "queue", 0700) < 0 && errno != EEXIST)
        why = errno;
    queue = run >= 0 ? open_own_directory(run, "queue") : -1;
    if (why == 0)
        why = errno;
    if (run >= 0)
        close(run);
    errno = why;
    return queue;
}

bool queue_put(const char *hex, const void *frame, size_t length)
{
    char unfinished[HEX_CHARACTERS + 32], finished[HEX_CHARACTERS + 8];
    int directory = open_queue(true);
    int file, why;
    bool done;

    if (directory < 0)
        return false;
    snprintf(unfinished, sizeof unfinished, "%s.%d.tmp", hex, (int)getpid());
    snprintf(finished, sizeof finished, "%s.req", hex);
    /* a leftover of the same pid is from a launcher that was killed half way */
    unlinkat(directory, unfinished, 0);
    file = openat(directory, unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                  0600);
    done = file >= 0 && write_all(file, frame, length, now() + 1000);
    why = errno;
    if (file >= 0 && close(file) < 0 && done) {
        done = false;
        why = errno;
    }
    if (done && renameat(directory, unfinished, directory, finished) < 0) {
        done = false;
        why = errno;
    }
    if (!done && file >= 0)
        unlinkat(directory, unfinished, 0);
    close(directory);
    errno = why;
    return done;
}

void queue_take_back(const char *hex)
{
    char name[HEX_CHARACTERS + 8];
    int directory = open_queue(false);

    if (directory < 0)
        return;
    snprintf(name, sizeof name, "%s.req", hex);
    unlinkat(directory, name, 0);
    close(directory);
}
