#include "agent.h"

#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_PATH WEFT_RUN_DIR "/agent.sock"

_Static_assert(sizeof SOCKET_PATH <= sizeof((struct sockaddr_un *)0)->sun_path,
               "the socket's path fits its address");

/* Whether root listens, or we do: anybody else's answers are not worth asking for. The kernel keeps
 * who it was that called listen(2) (unix(7), SO_PEERCRED). */
static bool is_own_agent(int fd)
{
    struct ucred listener;
    socklen_t length = sizeof listener;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &length) == 0
           && (listener.uid == 0 || listener.uid == geteuid());
}

/* A unix connect waits only while the agent's backlog is full, and for that SO_SNDTIMEO is the
 * limit (EAGAIN when it passes). */
static int connect_agent(int limit)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};
    struct timeval wait = {.tv_sec = limit / 1000, .tv_usec = limit % 1000 * 1000};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int why;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        if (errno == EINTR)
            continue;
        why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    if (is_own_agent(fd))
        return fd;
    close(fd);
    errno = EPERM;
    return -1;
}

static ssize_t send_some(int fd, const void *data, size_t length, int descriptor)
{
    struct iovec part = {.iov_base = (void *)data, .iov_len = length};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (descriptor >= 0) {
        struct cmsghdr *rights = &control.header;

        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static enum outcome send_request(int fd, const struct request *request, int64_t deadline)
{
    size_t done = 0;

    while (done < request->length) {
        ssize_t sent = send_some(fd, request->bytes + done, request->length - done,
                                 done == 0 ? request->netns : -1);
        if (sent > 0)
            done += (size_t)sent;
        else if (errno == EAGAIN && !wait_for(fd, POLLOUT, deadline))
            return LATE;
        else if (errno != EAGAIN && errno != EINTR)
            return LOST;
    }
    return ANSWERED;
}

static enum outcome receive(int fd, unsigned char *into, size_t length, int64_t deadline)
{
    while (length > 0) {
        ssize_t got;

        if (!wait_for(fd, POLLIN, deadline))
            return LATE;
        got = recv(fd, into, length, MSG_DONTWAIT);
        if (got > 0) {
            into += got;
            length -= (size_t)got;
        } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
            return LOST;
        }
    }
    return ANSWERED;
}

static enum outcome receive_answer(int fd, int64_t deadline, struct answer *answer)
{
    unsigned char header[FRAME_HEADER];
    enum outcome outcome = receive(fd, header, sizeof header, deadline);
    size_t length;

    if (outcome != ANSWERED)
        return outcome;
    length = get_number(header + 8, 4);
    if (memcmp(header, FRAME_MAGIC, 4) != 0 || get_number(header + 4, 2) != FRAME_VERSION
        || get_number(header + 6, 2) != KIND_CNI_ANSWER || length < 5 || length > MAX_PAYLOAD)
        return LOST;
    outcome = receive(fd, answer->payload, length, deadline);
    if (outcome != ANSWERED)
        return outcome;
    answer->status = answer->payload[0];
    answer->length = get_number(answer->payload + 1, 4);
    answer->output = answer->payload + 5;
    if (answer->length > length - 5)
        return LOST;
    /* a failure without its error object would leave standard output empty */
    return answer->status != 0 && answer->length == 0 ? LOST : ANSWERED;
}

enum outcome ask_agent(const struct request *request, int connect_limit, int answer_limit,
                       struct answer *answer)
{
    int fd = connect_agent(connect_limit);
    int64_t deadline = now() + answer_limit;
    enum outcome outcome;

    if (fd < 0)
        return UNREACHED;
    outcome = send_request(fd, request, deadline);
    /* an agent that has answered and closed early leaves its answer to be read */
    if (outcome != LATE)
        outcome = receive_answer(fd, deadline, answer);
    close(fd);
    return outcome;
}
