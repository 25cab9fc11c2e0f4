/* The queue of DELs that no agent was there to take: one file each, named by the attachment. */
#ifndef WEFT_QUEUE_H
#define WEFT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

/* Writes `frame` as WEFT_RUN_DIR/queue/<hex>.req in one step; false: errno says why not. */
bool queue_put(const char *hex, const void *frame, size_t length);

/* Takes the file back: an agent has answered for it. */
void queue_take_back(const char *hex);

#endif
