#include "link.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ALIAS_MARK "weft:"

struct request {
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[64];
};

/* rtnetlink answers within milliseconds, a removal within one RCU grace period. */
static int open_rtnetlink(void)
{
    struct timeval limit = {.tv_sec = 1};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* One request, one answer: its length, or -1. */
static ssize_t exchange(int fd, struct request *ask, void *answer, size_t size)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct sockaddr_nl from;
    socklen_t from_length = sizeof from;
    ssize_t got;

    if (sendto(fd, ask, ask->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return -1;
    do
        got = recvfrom(fd, answer, size, MSG_TRUNC, (struct sockaddr *)&from, &from_length);
    while (got < 0 && errno == EINTR);
    return got > (ssize_t)size || from.nl_pid != 0 ? -1 : got;
}

/* The attribute `type` among `length` bytes at `at`, or NULL. */
static const struct rtattr *attribute(const void *at, size_t length, unsigned type)
{
    while (length >= sizeof(struct rtattr)) {
        const struct rtattr *one = at;
        size_t step = RTA_ALIGN((size_t)one->rta_len);

        if (one->rta_len < sizeof *one || one->rta_len > length)
            return NULL;
        if ((one->rta_type & NLA_TYPE_MASK) == type)
            return one;
        if (step > length)
            return NULL;
        at = (const char *)at + step;
        length -= step;
    }
    return NULL;
}

static const char *value(const struct rtattr *one, size_t *length)
{
    *length = one->rta_len - sizeof *one;
    return (const char *)one + RTA_LENGTH(0);
}

/* The index of the link when it is ours, else 0. */
static int index_if_ours(const struct nlmsghdr *answer, size_t got)
{
    const struct ifinfomsg *link = NLMSG_DATA(answer);
    const struct rtattr *info, *kind, *alias;
    const char *text;
    size_t length;

    if (got < NLMSG_LENGTH(sizeof *link) || answer->nlmsg_type != RTM_NEWLINK
        || answer->nlmsg_len > got)
        return 0;
    length = answer->nlmsg_len - NLMSG_LENGTH(sizeof *link);
    text = (const char *)link + NLMSG_ALIGN(sizeof *link);
    info = attribute(text, length, IFLA_LINKINFO);
    alias = attribute(text, length, IFLA_IFALIAS);
    if (info == NULL || alias == NULL)
        return 0;
    text = value(info, &length);
    kind = attribute(text, length, IFLA_INFO_KIND);
    if (kind == NULL)
        return 0;
    text = value(kind, &length);
    if (length < sizeof "veth" || memcmp(text, "veth", sizeof "veth") != 0)
        return 0;
    text = value(alias, &length);
    if (length < strlen(ALIAS_MARK) || memcmp(text, ALIAS_MARK, strlen(ALIAS_MARK)) != 0)
        return 0;
    return link->ifi_index;
}

static bool remove_by_index(int fd, int index)
{
    struct request ask = {
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                   .nlmsg_seq = 2},
        .link = {.ifi_index = index},
    };
    union {
        struct nlmsghdr header;
        char bytes[512];
    } answer;
    const struct nlmsgerr *error = NLMSG_DATA(&answer.header);
    ssize_t got = exchange(fd, &ask, &answer, sizeof answer);

    return got >= (ssize_t)NLMSG_LENGTH(sizeof *error) && answer.header.nlmsg_type == NLMSG_ERROR
           && (error->error == 0 || error->error == -ENODEV);
}

bool remove_host_link(const char *name)
{
    struct request ask = {
        .header = {.nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1},
    };
    struct rtattr *wanted = (struct rtattr *)ask.attributes;
    static union {
        struct nlmsghdr header;
        char bytes[32768];
    } answer;
    bool removed = false;
    ssize_t got;
    int fd;

    wanted->rta_type = IFLA_IFNAME;
    wanted->rta_len = (unsigned short)RTA_LENGTH(strlen(name) + 1);
    memcpy(RTA_DATA(wanted), name, strlen(name) + 1);
    ask.header.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)) + RTA_ALIGN(wanted->rta_len);
    fd = open_rtnetlink();
    if (fd < 0)
        return false;
    got = exchange(fd, &ask, &answer, sizeof answer);
    if (got >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr))
        && answer.header.nlmsg_type == NLMSG_ERROR) {
        removed = ((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error == -ENODEV;
    } else if (got > 0) {
        int index = index_if_ours(&answer.header, (size_t)got);
        removed = index == 0 || remove_by_index(fd, index);
    }
    close(fd);
    return removed;
}
