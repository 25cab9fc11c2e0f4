#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACE_MAGIC 0x6e736673 /* nsfs, linux/magic.h */

/* Offsets of the two fields that differ in the queue. */
#define AT_FLAGS (FRAME_HEADER + 2)
#define AT_NETNS (FRAME_HEADER + 4)

extern char **environ;

static struct {
    unsigned char kept[6];
} sent;

const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

/* Looks before it opens: opening a FIFO wakes its writer and opening a device may do anything, so
 * only what is a namespace is opened for good. Of anything else the agent gets a handle that
 * serves to see what it is. */
static int open_netns(int *failure)
{
    const char *path = variable("CNI_NETNS");
    struct statfs is;
    int look, fd;

    *failure = NETNS_NONE;
    if (path == NULL)
        return -1;
    look = open(path, O_PATH | O_CLOEXEC);
    if (look < 0) {
        *failure = errno;
        return -1;
    }
    *failure = NETNS_PASSED;
    if (fstatfs(look, &is) < 0 || is.f_type != NAMESPACE_MAGIC)
        return look;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        *failure = errno;
    close(look);
    return fd;
}

static bool is_handed_over(const char *entry)
{
    return strncmp(entry, "CNI_", 4) == 0 || strncmp(entry, "TRACEPARENT=", 12) == 0
           || strncmp(entry, "TRACESTATE=", 11) == 0;
}

/* A number of four bytes at `at`, now that it is known. */
static void set_length(struct buffer *out, size_t at, size_t value)
{
    struct buffer there = {.data = out->data + at, .size = 4};
    put_number(&there, value, 4);
}

bool build_request(struct request *to, const char *program, const unsigned char *input,
                   size_t input_length)
{
    struct buffer out = {.data = to->bytes, .size = sizeof to->bytes};
    struct timespec started;
    size_t environment;
    int failure;

    clock_gettime(CLOCK_BOOTTIME, &started);
    to->netns = open_netns(&failure);

    put_text(&out, FRAME_MAGIC);
    put_number(&out, FRAME_VERSION, 2);
    put_number(&out, KIND_CNI_REQUEST, 2);
    put_number(&out, 0, 4);
    put_number(&out, LAUNCHER_PROTOCOL, 2);
    put_number(&out, 0, 2);
    put_number(&out, (uint32_t)failure, 4);
    put_number(&out, strlen(program), 4);
    put_text(&out, program);
    put_number(&out, 0, 4);
    environment = out.used;
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        if (is_handed_over(*entry))
            put_bytes(&out, *entry, strlen(*entry) + 1);
        if (out.full || out.used - environment > MAX_ENVIRONMENT)
            return false;
    }
    set_length(&out, environment - 4, out.used - environment);
    put_number(&out, input_length, 4);
    put_bytes(&out, input, input_length);
    put_number(&out, (uint64_t)started.tv_sec * 1000000000 + (uint64_t)started.tv_nsec, 8);
    set_length(&out, 8, out.used - FRAME_HEADER);
    to->length = out.used;
    return !out.full;
}

void mark_queued(struct request *request)
{
    struct buffer there = {.data = request->bytes + AT_FLAGS, .size = 6};

    memcpy(sent.kept, request->bytes + AT_FLAGS, sizeof sent.kept);
    put_number(&there, FLAG_QUEUED, 2);
    put_number(&there, (uint32_t)NETNS_NONE, 4);
}

void mark_sent(struct request *request)
{
    memcpy(request->bytes + AT_FLAGS, sent.kept, sizeof sent.kept);
}
