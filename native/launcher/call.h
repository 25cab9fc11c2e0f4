/* One call of the program, from its words to its exit status. */
#ifndef WEFT_CALL_H
#define WEFT_CALL_H

#include "agent.h"
#include "identity.h"
#include "request.h"
#include "scan.h"

enum verb { ADD, DEL, CHECK, STATUS, GC, VERSION, UNKNOWN };

/* Static instead of on the stack or heap: a bound costs pages only where it is used. */
struct call {
    enum verb verb;
    const char *program;
    bool hook; /* a hook of an OCI runtime: words on standard error, nothing on standard output */
    unsigned char input[MAX_STDIN];
    size_t input_length;
    struct request request;
    struct answer answer;
    struct configuration configuration;
    struct identity identity;
    char message[1024];
};

extern struct call call;

/* Hands `input` over to the agent and prints its answer; the exit status. */
int hand_over(void);

/* Prints an error in the caller's version, as far as standard input tells it; exit status 1. */
int refuse(int code, const char *reason, const char *message);

/* Prints what the agent answered; the exit status. */
int print_answer(void);

/* DEL when the agent gave no answer; the exit status. `deadline`: of the first attempt, which the
 * second does not outlast by much. */
int delete_alone(enum outcome outcome, int64_t deadline);

#endif
