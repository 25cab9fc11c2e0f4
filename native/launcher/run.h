/* The directory that launcher and agent share, and what may be believed of what lies in it.
 *
 * Whoever can change a directory on the way to it, or the directory itself, can put anything in
 * it; so all of them must be root's and no one else's to write. Then what was looked at stays what
 * it was. The agent's side of this is src/weft/kernel/files.py.
 */
#ifndef WEFT_RUN_H
#define WEFT_RUN_H

#include <stdbool.h>

/* WEFT_RUN_DIR, made where it is missing if `make`. -1: errno says why, EPERM that others could
 * change it. What kept it from being made is what errno says then, not that it is missing. */
int open_run(bool make);

/* A directory in another that only its owner, who is us or root, can change; -1 as above. */
int open_own_directory(int parent, const char *name);

/* A regular file in `parent` that root or we wrote under this name only; -1 for anything else.
 * Never waits for the other end of a pipe and opens no device. */
int open_own_file(int parent, const char *name);

#endif
