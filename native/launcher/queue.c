#include "queue.h"

#include "identity.h"
#include "report.h"
#include "run.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Takes `name` out of the way under the first free name NAME.unsafe-N: whatever it is, it is
 * nothing that a launcher made, and a person may look at it. */
static bool set_aside(int directory, const char *name)
{
    char aside[HEX_CHARACTERS + 32];

    for (int number = 1; number < 100; number++) {
        struct stat is;

        snprintf(aside, sizeof aside, "%s.unsafe-%d", name, number);
        if (fstatat(directory, aside, &is, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        return errno == ENOENT && renameat(directory, name, directory, aside) == 0;
    }
    return false;
}

/* With `make` the directories are made where they are missing, and a queue that is no directory
 * of root's alone makes place for one: a DEL must not fail for it. */
static int open_queue(bool make)
{
    int run = open_run(make);
    int queue, why = 0;

    if (run < 0)
        return -1;
    if (make && mkdirat(run, "queue", 0700) < 0 && errno != EEXIST)
        why = errno;
    queue = open_own_directory(run, "queue");
    if (queue < 0 && make && (errno == EPERM || errno == ELOOP || errno == ENOTDIR)
        && set_aside(run, "queue")) {
        note("the queue of deletions was not root's alone; it is set aside");
        if (mkdirat(run, "queue", 0700) < 0 && errno != EEXIST)
            why = errno;
        queue = open_own_directory(run, "queue");
    }
    if (why == 0)
        why = errno;
    close(run);
    errno = why;
    return queue;
}

/* A directory of the entry's name would keep a file from taking its place. */
static bool put_in_place(int directory, const char *unfinished, const char *finished)
{
    return renameat(directory, unfinished, directory, finished) == 0
           || ((errno == EISDIR || errno == ENOTEMPTY || errno == EEXIST)
               && set_aside(directory, finished)
               && renameat(directory, unfinished, directory, finished) == 0);
}

/* A new file that is locked as long as it is being written: one that nobody has locked is what a
 * killed launcher left, and whoever drains the queue removes it. The drain may take the lock, and
 * the file, in the moment before we do. */
static int open_unfinished(int directory, const char *name)
{
    struct stat is;

    for (int tries = 0; tries < 3; tries++) {
        int file;

        /* a leftover of the same pid is from a launcher that was killed half way */
        unlinkat(directory, name, 0);
        file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (file < 0)
            return -1;
        if (flock(file, LOCK_EX | LOCK_NB) == 0 && fstat(file, &is) == 0 && is.st_nlink == 1)
            return file;
        close(file);
    }
    errno = EAGAIN;
    return -1;
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
    file = open_unfinished(directory, unfinished);
    done = file >= 0 && write_all(file, frame, length, now() + 1000);
    why = errno;
    if (done && !put_in_place(directory, unfinished, finished)) {
        done = false;
        why = errno;
    }
    if (!done && file >= 0)
        unlinkat(directory, unfinished, 0);
    if (file >= 0)
        close(file); /* and gives up the lock */
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
