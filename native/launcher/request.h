/* What the launcher hands over: one frame with the program's name, the environment and stdin. */
#ifndef WEFT_REQUEST_H
#define WEFT_REQUEST_H

#include "bytes.h"
#include "protocol.h"

struct request {
    unsigned char bytes[FRAME_HEADER + MAX_PAYLOAD];
    size_t length;
    int netns; /* the open CNI_NETNS, or -1 */
};

/* The variable's value; NULL where it is unset or empty. The first of several counts. */
const char *variable(const char *name);

/* Opens CNI_NETNS and builds the frame; false: the environment exceeds its bound. */
bool build_request(struct request *out, const char *program, const unsigned char *input,
                   size_t input_length);

/* The same frame as it goes into the queue, where no descriptor accompanies it. */
void mark_queued(struct request *request);

/* And back again, for sending it after all. */
void mark_sent(struct request *request);

#endif
