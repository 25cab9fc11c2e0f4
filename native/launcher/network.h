/* The network that a hook attaches to, from the files of CNI. */
#ifndef WEFT_NETWORK_H
#define WEFT_NETWORK_H

#include "scan.h"

#define MAX_NAME 255

struct network {
    char name[MAX_NAME + 1];
    char file[4096];
    unsigned char text[MAX_STDIN];
    size_t length;
};

/* Reads the configuration `file`, or, where that is NULL, the first of WEFT_CONF_DIR by name of the
 * file that is of the network `name`. `name` NULL: whichever the file is of. False: `why` says. */
bool find_network(struct network *to, const char *name, const char *file, char *why, size_t room);

/* The one plugin of a network's configuration: weft's, for a hook executes no others. */
bool find_plugin(const struct network *network, struct member *plugin, char *why, size_t room);

#endif
