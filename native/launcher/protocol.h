/* The agent's local protocol as the launcher speaks it, and the bounds of everything it touches.
 *
 * docs/reference/local-protocol.md describes the bytes; src/weft/wire/local.py is the other side,
 * and a unit test compares the constants of the two.
 */
#ifndef WEFT_PROTOCOL_H
#define WEFT_PROTOCOL_H

#ifndef WEFT_RUN_DIR
#define WEFT_RUN_DIR "/run/weft"
#endif

/* Of this release; native/compile.py says it. */
#ifndef WEFT_VERSION
#define WEFT_VERSION "0.0.0"
#endif

/* Where runtimes that know CNI, and `weft install`, keep networks. */
#ifndef WEFT_CONF_DIR
#define WEFT_CONF_DIR "/etc/cni/net.d"
#endif
#define DEFAULT_NETWORK "weft"
#define DEFAULT_IFNAME "eth0"

#define FRAME_MAGIC "WFT1"
#define FRAME_VERSION 1
#define FRAME_HEADER 12
#define KIND_CNI_REQUEST 1
#define KIND_CNI_ANSWER 2

/* Counts additions to the request's payload; a receiver ignores what it does not know. */
#define LAUNCHER_PROTOCOL 1
#define FLAG_QUEUED 1

#define NETNS_PASSED 0
#define NETNS_NONE (-1)

#define MAX_STDIN (1024 * 1024)
#define MAX_ENVIRONMENT (512 * 1024)
#define MAX_PAYLOAD (2 * 1024 * 1024)

/* All spec versions, oldest first; the last is what we name when the caller named none. */
#define CNI_VERSIONS "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
#define CNI_NEWEST "1.1.0"

/* Milliseconds. Tests compile with shorter ones. */
#define CONNECT_LIMIT 1000
#define RECONNECT_LIMIT 200
#define RETRY_LIMIT 1000
#define VERSION_STDIN_LIMIT 1000
#define STDOUT_LIMIT 10000
#ifndef ADD_LIMIT
#define ADD_LIMIT 30000
#endif
#ifndef STDIN_LIMIT
#define STDIN_LIMIT 5000
#endif
#ifndef ANSWER_LIMIT
#define ANSWER_LIMIT 10000
#endif
/* A runtime that asks STATUS hears within 5 s, with connecting, that the agent is stuck. */
#ifndef STATUS_LIMIT
#define STATUS_LIMIT 3500
#endif

/* CNI error codes (SPEC.md 1.1.0, "Error"). */
#define CODE_ENVIRONMENT 4
#define CODE_IO 5
#define CODE_DECODE 6
#define CODE_CONFIG 7
#define CODE_AGAIN 11
#define CODE_UNAVAILABLE 50

#endif
