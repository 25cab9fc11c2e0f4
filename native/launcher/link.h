/* Removing an attachment's host link while no agent is there to do it. */
#ifndef WEFT_LINK_H
#define WEFT_LINK_H

#include <stdbool.h>

/* Removes the link `name` of this network namespace, but only when the kernel says that it is a
 * veth and its alias starts with "weft:". False: the kernel refused; nothing there is true. */
bool remove_host_link(const char *name);

#endif
