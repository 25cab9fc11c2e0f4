/* The program that a container runtime executes as its CNI plugin, and an OCI runtime as a hook.
 *
 * It takes environment and standard input, hands them to the resident agent over a unix socket,
 * prints the agent's answer and exits 0 or 1. What must work without an agent is done here:
 * VERSION, an unknown verb, errors, `--version`, and a DEL, which is queued and whose host link is
 * removed.
 * Static, without heap, PATH, HOME or locale. Bounds and limits: protocol.h.
 */
#include "call.h"
#include "hook.h"
#include "report.h"
#include "run.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* The installer knows a launcher of ours by this text; Nomad takes the plugin's version from it:
 * the first word that is one. */
#define ABOUT                                                                                      \
    "weft-launcher: CNI plugin weft v" WEFT_VERSION " hands CNI calls to the weft agent on "       \
    WEFT_RUN_DIR "/agent.sock"

static const char *const verbs[] = {"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"};

struct call call;

static enum verb verb_of(const char *word)
{
    for (int i = 0; i < UNKNOWN; i++)
        if (strcmp(word, verbs[i]) == 0)
            return (enum verb)i;
    return UNKNOWN;
}

static const char *program_name(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : path;
    return name != NULL && *name != '\0' && strlen(name) <= 255 ? name : "weft";
}

int refuse(int code, const char *reason, const char *message)
{
    if (call.hook) {
        tell(message, "");
        return 1;
    }
    scan(call.input, call.input_length, &call.configuration);
    return report_error(version_of(&call.configuration), code, reason, message);
}

int print_answer(void)
{
    if (call.hook)
        return tell_answer(&call.answer);
    if (!write_all(1, call.answer.output, call.answer.length, now() + STDOUT_LIMIT))
        return 1;
    return call.answer.status == 0 ? 0 : 1;
}

/* What the agent's administrator set for ADD, in seconds: ASCII digits, 1 to 600. */
static int add_limit(void)
{
    char text[8];
    int seconds = 0;
    int run = open_run(false);
    int fd = run < 0 ? -1 : open_own_file(run, "add-timeout");
    ssize_t length;

    if (run >= 0)
        close(run);
    if (fd < 0)
        return ADD_LIMIT;
    length = read(fd, text, sizeof text);
    close(fd);
    while (length > 0 && text[length - 1] == '\n')
        length--;
    if (length < 1 || length > 3)
        return ADD_LIMIT;
    for (ssize_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return ADD_LIMIT;
        seconds = seconds * 10 + text[i] - '0';
    }
    return seconds >= 1 && seconds <= 600 ? seconds * 1000 : ADD_LIMIT;
}

static int answer_limit(void)
{
    if (call.verb == ADD)
        return add_limit();
    return call.verb == STATUS ? STATUS_LIMIT : ANSWER_LIMIT;
}

static int without_answer(enum outcome outcome, int limit, int why)
{
    static const char remedy[] = "start the agent (`weft agent`, or its service unit) and try again";
    int code = call.verb == STATUS ? CODE_UNAVAILABLE : CODE_AGAIN;

    if (outcome == LATE)
        snprintf(call.message, sizeof call.message,
                 "the agent gave no answer to %s within %d.%d s and what it had begun is undone; try "
                 "again, and see its log if that persists",
                 verbs[call.verb], limit / 1000, limit % 1000 / 100);
    else if (outcome == LOST)
        snprintf(call.message, sizeof call.message,
                 "the agent closed the connection without an answer to %s; %s", verbs[call.verb],
                 remedy);
    else
        snprintf(call.message, sizeof call.message,
                 "the agent does not answer on " WEFT_RUN_DIR "/agent.sock (%s); %s",
                 strerror(why), remedy);
    return refuse(code, "agent-absent", call.message);
}

int hand_over(void)
{
    int limit = answer_limit();
    int64_t deadline;
    enum outcome outcome;

    if (!build_request(&call.request, call.program, call.input, call.input_length))
        return refuse(CODE_ENVIRONMENT, "invalid-environment",
                      "the CNI_ variables are larger than 512 KiB together");
    deadline = now() + limit;
    outcome = ask_agent(&call.request, CONNECT_LIMIT, limit, &call.answer);
    if (outcome == ANSWERED)
        return print_answer();
    if (call.verb == DEL)
        return delete_alone(outcome, deadline);
    return without_answer(outcome, limit, errno);
}

static int refuse_verb(const char *word)
{
    snprintf(call.message, sizeof call.message, "unknown CNI_COMMAND: %.64s", word);
    return refuse(CODE_ENVIRONMENT, "invalid-environment", call.message);
}

/* Not a call. Without arguments it says what it is; with those of Amazon's ECS agent what that
 * agent wants to know of each of its plugins, on standard output. */
static int introduce(const char *asked)
{
    if (asked != NULL && strcmp(asked, "--version") == 0)
        return report("{\"version\":\"" WEFT_VERSION "\",\"dirty\":false,\"gitShortHash\":\"\"}\n");
    if (asked != NULL && strcmp(asked, "--capabilities") == 0)
        return report("{\"capabilities\":[]}\n");
    note(ABOUT "; it is executed by container runtimes with CNI_COMMAND set");
    return 0;
}

int main(int count, char **arguments)
{
    bool deaf = fcntl(1, F_GETFD) < 0;
    const char *word = variable("CNI_COMMAND");
    enum reading reading;

    if (!hold_standard_descriptors())
        return 1;
    signal(SIGPIPE, SIG_IGN);
    call.program = program_name(count > 0 ? arguments[0] : NULL);
    if (count > 1 && strcmp(arguments[1], HOOK_WORD) == 0)
        return run_hook(count - 2, arguments + 2);
    if (word == NULL)
        return introduce(count == 2 ? arguments[1] : NULL);
    call.verb = verb_of(word);
    if (call.verb == ADD && deaf) {
        note("standard output is closed, so the result of ADD could not be told: nothing done");
        return 1;
    }
    reading = read_to_end(0, call.input, sizeof call.input,
                          now() + (call.verb == VERSION ? VERSION_STDIN_LIMIT : STDIN_LIMIT),
                          &call.input_length);
    if (call.verb == VERSION) {
        scan(call.input, call.input_length, &call.configuration);
        return report_versions(version_of(&call.configuration));
    }
    if (call.verb == UNKNOWN)
        return refuse_verb(word);
    if (reading == READ_TOO_MUCH)
        return refuse(CODE_IO, "io-failure", "standard input is larger than 1 MiB");
    if (reading == READ_TOO_SLOW)
        return refuse(CODE_IO, "io-failure", "standard input did not end within 5 s");
    if (reading == READ_FAILED)
        return refuse(CODE_IO, "io-failure", "standard input could not be read");
    return hand_over();
}
