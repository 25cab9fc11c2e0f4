#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

int left_until(int64_t deadline)
{
    int64_t left = deadline - now();
    return left > 0 ? (int)left : 0;
}

bool wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd one = {.fd = fd, .events = events};
        int ready = poll(&one, 1, left_until(deadline));
        if (ready > 0)
            return true; /* errors and hang-ups too: the next call on `fd` names them */
        if (ready == 0 || errno != EINTR)
            return false;
    }
}

enum reading read_to_end(int fd, unsigned char *into, size_t size, int64_t deadline,
                         size_t *length)
{
    unsigned char excess;

    *length = 0;
    for (;;) {
        bool room = *length < size;
        ssize_t got;

        if (!wait_for(fd, POLLIN, deadline))
            return READ_TOO_SLOW;
        got = read(fd, room ? into + *length : &excess, room ? size - *length : 1);
        if (got == 0)
            return READ_ALL;
        if (got < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            return READ_FAILED;
        }
        if (!room)
            return READ_TOO_MUCH;
        *length += (size_t)got;
    }
}

bool write_all(int fd, const void *data, size_t length, int64_t deadline)
{
    const unsigned char *at = data;

    while (length > 0) {
        ssize_t put = write(fd, at, length);
        if (put >= 0) {
            at += put;
            length -= (size_t)put;
        } else if (errno == EAGAIN) {
            if (!wait_for(fd, POLLOUT, deadline))
                return false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

bool hold_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH) != fd)
            return false;
    return true;
}
