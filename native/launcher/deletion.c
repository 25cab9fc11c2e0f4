/* DEL without an agent: the one verb that must succeed all the same. */
#include "call.h"
#include "link.h"
#include "queue.h"
#include "report.h"
#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Derives which attachment a DEL is about. 0: done; else the exit status of a refusal. */
static int identify_attachment(void)
{
    const char *container = variable("CNI_CONTAINERID");
    const char *ifname = variable("CNI_IFNAME");
    const struct configuration *conf = &call.configuration;

    if (container == NULL)
        container = variable("CNI_PODID");
    if (container == NULL || ifname == NULL) {
        snprintf(call.message, sizeof call.message, "required env variables [%s%s%s] missing",
                 container == NULL ? "CNI_CONTAINERID" : "",
                 container == NULL && ifname == NULL ? "," : "",
                 ifname == NULL ? "CNI_IFNAME" : "");
        return refuse(CODE_ENVIRONMENT, "invalid-environment", call.message);
    }
    if (!is_identifier((const unsigned char *)container, strlen(container)))
        return refuse(CODE_ENVIRONMENT, "invalid-environment",
                      "CNI_CONTAINERID is not a letter or digit followed by letters, digits, "
                      "'_', '.' or '-'");
    if (!is_link_name(ifname))
        return refuse(CODE_ENVIRONMENT, "invalid-environment",
                      "CNI_IFNAME cannot be the name of a container's interface");
    if (!scan(call.input, call.input_length, &call.configuration))
        return refuse(CODE_DECODE, "decode-failure",
                      "the network configuration on standard input is not a JSON object");
    if (conf->name.presence == NOT_TEXT)
        return refuse(CODE_DECODE, "decode-failure", "'name' of the configuration is no string");
    if (conf->name.presence == ABSENT || conf->name.length == 0)
        return refuse(CODE_CONFIG, "invalid-config", "missing network name");
    if (!is_identifier(conf->name_bytes, conf->name.length))
        return refuse(CODE_CONFIG, "invalid-config",
                      "'name' of the configuration is not a letter or digit followed by letters, "
                      "digits, '_', '.' or '-'");
    identify(conf->name_bytes, conf->name.length, container, ifname, &call.identity);
    return 0;
}

/* A file system that takes no file now, as opposed to a queue that cannot be trusted. */
static bool is_of_the_disk(int why)
{
    return why == ENOSPC || why == EDQUOT || why == EROFS || why == EIO;
}

/* DEL without an agent. The queue comes before the effect, and the second attempt to connect comes
 * after both: an agent listens first, then drains, so it either saw our file or hears us now.
 * One that is there but hangs gets no second attempt. A full disk does not keep a container from
 * being deleted: an agent that starts gives back what has no link any more. */
int delete_alone(enum outcome outcome, int64_t deadline)
{
    bool queued, removed;
    int refused = identify_attachment();
    int why, left, unreached = 0;

    if (refused != 0)
        return refused;
    mark_queued(&call.request);
    queued = queue_put(call.identity.hex, call.request.bytes, call.request.length);
    why = errno;
    removed = remove_host_link(call.identity.link);
    if (!removed)
        note("could not remove the host link; the agent will");
    mark_sent(&call.request);
    if (outcome != LATE) {
        /* where a service manager listens it may wait for the agent to be started again */
        left = left_until(deadline);
        outcome = ask_agent(&call.request, RECONNECT_LIMIT, left > RETRY_LIMIT ? left : RETRY_LIMIT,
                            &call.answer);
        unreached = outcome == UNREACHED ? errno : 0;
        if (outcome == ANSWERED) {
            if (queued)
                queue_take_back(call.identity.hex);
            return print_answer();
        }
    }
    if (queued) {
        note("the agent is absent; the DEL is queued for it");
        return 0;
    }
    if (removed && is_of_the_disk(why) && (unreached == ENOENT || unreached == ECONNREFUSED)) {
        note("the agent is absent and the DEL could not be queued; its link is removed, and the "
             "agent gives the rest back when it starts");
        return 0;
    }
    snprintf(call.message, sizeof call.message,
             "the agent does not answer and the DEL could not be queued in " WEFT_RUN_DIR
             "/queue: %s; start the agent and try again",
             strerror(why));
    return refuse(CODE_AGAIN, "agent-absent", call.message);
}
