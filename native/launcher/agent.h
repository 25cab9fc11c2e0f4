/* Asking the agent: connect, send the frame with the namespace's descriptor, wait for the answer.
 *
 * Going away is how a launcher cancels: nothing is shut down half-way and nothing is sent after
 * the frame, so the end of the connection always means that nobody waits any more.
 */
#ifndef WEFT_AGENT_H
#define WEFT_AGENT_H

#include "protocol.h"
#include "request.h"

struct answer {
    unsigned char payload[MAX_PAYLOAD];
    int status;
    const unsigned char *output;
    size_t length;
};

enum outcome {
    ANSWERED,
    UNREACHED, /* no connection within the limit; errno says why */
    LOST,      /* closed without an answer, or not an answer of this protocol */
    LATE,      /* no answer in time */
};

enum outcome ask_agent(const struct request *request, int connect_limit, int answer_limit,
                       struct answer *answer);

#endif
