/* The launcher as a hook of an OCI runtime (runc, crun, youki), at createRuntime or prestart and at
 * poststop: WEFT oci-hook [--network NAME] [--conf FILE] [--ifname NAME]
 *
 * The container's state on standard input (runtime-spec, "State") becomes a CNI call: what has a
 * process is ADDed, what is stopped is DELeted. On failure there are words on standard error, which
 * runtimes show; standard output stays empty.
 */
#ifndef WEFT_HOOK_H
#define WEFT_HOOK_H

#include "agent.h"

#define HOOK_WORD "oci-hook"

/* `arguments`: those behind the word; the exit status. */
int run_hook(int count, char **arguments);

/* What the agent answered, in words; the exit status. */
int tell_answer(const struct answer *answer);

#endif
