#include "run.h"

#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_own(const struct stat *it)
{
    return it->st_uid == 0 || it->st_uid == geteuid();
}

static bool others_write(const struct stat *it)
{
    return (it->st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

/* In a directory on the way, such as /tmp, others may make entries of their own (S_ISVTX). */
static int open_directory(int parent, const char *name, bool on_the_way)
{
    struct stat is;
    int why = EPERM;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -1;
    if (fstat(fd, &is) < 0)
        why = errno;
    else if (is_own(&is) && (!others_write(&is) || (on_the_way && (is.st_mode & S_ISVTX) != 0)))
        return fd;
    close(fd);
    errno = why;
    return -1;
}

int open_own_directory(int parent, const char *name)
{
    return open_directory(parent, name, false);
}

/* Goes down to the last part of WEFT_RUN_DIR, which is left in `path` at the returned place. */
static int open_holder(char *path, char **last)
{
    int here = open_directory(AT_FDCWD, "/", true);
    char *part = path + 1;
    char *slash;

    while (here >= 0 && (slash = strchr(part, '/')) != NULL) {
        int there, why;

        *slash = '\0';
        there = open_directory(here, part, true);
        why = errno;
        close(here);
        errno = why;
        here = there;
        part = slash + 1;
    }
    *last = part;
    return here;
}

int open_run(bool make)
{
    char path[] = WEFT_RUN_DIR;
    char *last;
    int holder = open_holder(path, &last);
    int run, why = 0;

    if (holder < 0)
        return -1;
    if (make && mkdirat(holder, last, 0700) < 0 && errno != EEXIST)
        why = errno;
    run = open_own_directory(holder, last);
    if (why == 0)
        why = errno;
    close(holder);
    errno = why;
    return run;
}

int open_own_file(int parent, const char *name)
{
    struct stat is;

    if (fstatat(parent, name, &is, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISREG(is.st_mode) || !is_own(&is) || others_write(&is) || is.st_nlink != 1) {
        errno = EPERM;
        return -1;
    }
    return openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}
