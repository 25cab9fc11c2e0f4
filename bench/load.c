/* Load for the benchmark `traffic`: one client and one server, each pinned to a processor.
 *
 *     load serve KIND ADDRESS PORT CPU            says "ready" when it listens, ends when killed
 *     load ask KIND ADDRESS PORT CPU SECONDS      says how much it did, and in how many nanoseconds
 *
 * KIND: connect  one connection after the other: connect, one octet from the server, close
 *       request  one octet there and one back, over one connection
 *       stream   octets from the client to the server, which reads without copying
 * A connection is closed by reset (SO_LINGER 0), so no port has to wait before it is used again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 128 * 1024, BACKLOG = 1024 };

static char chunk[CHUNK];

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static socklen_t goal(const char *address, const char *port, struct sockaddr_storage *at) {
    struct sockaddr_in *four = (struct sockaddr_in *)at;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)at;
    memset(at, 0, sizeof *at);
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((unsigned short)atoi(port));
        return sizeof *four;
    }
    if (inet_pton(AF_INET6, address, &six->sin6_addr) != 1) {
        errno = EINVAL;
        fail(address);
    }
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((unsigned short)atoi(port));
    return sizeof *six;
}

static void at_once(int fd) {
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        fail("TCP_NODELAY");
}

static _Noreturn void serve(const char *kind, int listening) {
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        if (fd < 0) {
            if (errno == ECONNABORTED)
                continue;
            fail("accept");
        }
        if (*kind == 'c') {
            (void)!send(fd, chunk, 1, MSG_NOSIGNAL);
        } else if (*kind == 'r') {
            at_once(fd);
            while (recv(fd, chunk, 1, 0) == 1 && send(fd, chunk, 1, MSG_NOSIGNAL) == 1)
                ;
        } else {
            while (recv(fd, chunk, 1 << 20, MSG_TRUNC) > 0)
                ;
        }
        close(fd);
    }
}

static int connected(const struct sockaddr_storage *to, socklen_t size) {
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = socket(to->ss_family, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)to, size))
        fail("connect");
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset))
        fail("SO_LINGER");
    return fd;
}

static void ask(const char *kind, const struct sockaddr_storage *to, socklen_t size, double span) {
    long long done = 0, begun = now(), end = begun + (long long)(span * 1e9), at = begun;
    int fd = *kind == 'c' ? -1 : connected(to, size);
    if (*kind == 'r')
        at_once(fd);
    while (at < end) {
        if (*kind == 'c') {
            fd = connected(to, size);
            if (recv(fd, chunk, 1, 0) != 1)
                fail("the server's octet");
            close(fd);
            done++;
        } else if (*kind == 'r') {
            if (send(fd, chunk, 1, 0) != 1 || recv(fd, chunk, 1, 0) != 1)
                fail("request");
            done++;
        } else {
            ssize_t sent = send(fd, chunk, CHUNK, 0);
            if (sent < 0)
                fail("send");
            done += sent;
        }
        at = now();
    }
    printf("%lld %lld\n", done, at - begun);
}

int main(int argc, char **argv) {
    struct sockaddr_storage at;
    cpu_set_t cpus;
    if (argc < 6) {
        fprintf(stderr, "usage: load serve|ask KIND ADDRESS PORT CPU [SECONDS]\n");
        return 2;
    }
    socklen_t size = goal(argv[3], argv[4], &at);
    CPU_ZERO(&cpus);
    CPU_SET((size_t)atoi(argv[5]), &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus))
        fail("sched_setaffinity");
    if (argc > 6) {
        ask(argv[2], &at, size, atof(argv[6]));
        return 0;
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) /* a worker that is killed ends no server itself */
        fail("PR_SET_PDEATHSIG");
    int on = 1, fd = socket(at.ss_family, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(fd, (struct sockaddr *)&at, size) || listen(fd, BACKLOG))
        fail("listen");
    serve(argv[2], fd);
}
