#include "hook.h"

#include "call.h"
#include "network.h"
#include "report.h"
#include "stream.h"

#include <stdio.h>

#define MAX_ID 1024

/* Where the agent finds the annotations: src/weft/wire/cni/annotated.py. */
#define ANNOTATIONS_KEY "weft.dev/oci-annotations"

static struct {
    const char *network;
    const char *file;
    const char *ifname;
} asked = {.ifname = DEFAULT_IFNAME};

static struct {
    unsigned char text[MAX_STDIN];
    size_t length;
    char id[MAX_ID + 1];
    char status[16];
    unsigned pid;
    struct member annotations;
} state;

static struct network network;

/* What the agent is told in place of the environment, which is the runtime's own. */
static struct {
    char command[16];
    char container[MAX_ID + 32];
    char ifname[64];
    char netns[64];
    char *entries[7];
} environment;

extern char **environ;

static int fail(const char *message)
{
    tell(message, "");
    return 1;
}

/* The value of `--WORD VALUE` or `--WORD=VALUE` at *at, which it steps over; NULL: not that word. */
static const char *value_of(const char *word, int count, char **arguments, int *at)
{
    const char *given = arguments[*at];
    size_t length = strlen(word);

    if (strncmp(given, word, length) != 0)
        return NULL;
    if (given[length] == '=')
        return given + length + 1;
    return given[length] == '\0' && *at + 1 < count ? arguments[++*at] : NULL;
}

static bool read_arguments(int count, char **arguments)
{
    for (int at = 0; at < count; at++) {
        const char **place = NULL, *value = NULL, *given = arguments[at];

        if ((value = value_of("--network", count, arguments, &at)) != NULL)
            place = &asked.network;
        else if ((value = value_of("--conf", count, arguments, &at)) != NULL)
            place = &asked.file;
        else if ((value = value_of("--ifname", count, arguments, &at)) != NULL)
            place = &asked.ifname;
        if (place == NULL || *value == '\0') {
            snprintf(call.message, sizeof call.message,
                     "oci-hook: %.64s cannot be understood; `args` of the hook are weft, oci-hook, "
                     "and --network NAME, --conf FILE, --ifname NAME (`weft oci-hook config` prints "
                     "them)",
                     given);
            return false;
        }
        *place = value;
    }
    if (asked.network == NULL && asked.file == NULL)
        asked.network = DEFAULT_NETWORK;
    return true;
}

/* A number of a process; 0 for anything else. */
static unsigned number_of(const struct member *member)
{
    unsigned value = 0;

    for (size_t i = 0; i < member->length; i++) {
        if (member->from[i] < '0' || member->from[i] > '9' || value > 100000000)
            return 0;
        value = value * 10 + (unsigned)(member->from[i] - '0');
    }
    return value;
}

/* NULL, or what is wrong with it. */
static const char *read_state(void)
{
    struct member found[] = {
        {.key = "id"}, {.key = "status"}, {.key = "pid"}, {.key = "annotations"}};

    switch (read_to_end(0, state.text, sizeof state.text, now() + STDIN_LIMIT, &state.length)) {
    case READ_TOO_MUCH:
        return "the container's state on standard input is larger than 1 MiB";
    case READ_TOO_SLOW:
        return "the container's state on standard input did not end within 5 s; an OCI runtime "
               "executes this as a hook (`weft oci-hook config`)";
    case READ_FAILED:
        return "the container's state on standard input could not be read";
    case READ_ALL:
        break;
    }
    if (!scan_members(state.text, state.length, found, 4))
        return "what is on standard input is not the state of a container: not one JSON object";
    if (!string_of(&found[0], state.id, sizeof state.id) || *state.id == '\0')
        return "the container's state on standard input has no `id`";
    if (found[1].from != NULL && !string_of(&found[1], state.status, sizeof state.status))
        return "the container's state on standard input has no `status` that the OCI's "
               "specification knows";
    state.pid = number_of(&found[2]);
    state.annotations = found[3];
    return NULL;
}

/* The words of the state make no difference between the hooks before the start, so neither is made
 * here. A runtime before version 1.0 of the specification says no status. */
static bool is_over(void)
{
    return strcmp(state.status, "stopped") == 0 || (*state.status == '\0' && state.pid == 0);
}

static bool is_beginning(void)
{
    return state.pid > 0
           && (*state.status == '\0' || strcmp(state.status, "creating") == 0
               || strcmp(state.status, "created") == 0);
}

static void set_environment(const char *command, bool with_namespace)
{
    char **next = environment.entries;

    for (char **entry = environ; entry != NULL && *entry != NULL; entry++)
        if (strncmp(*entry, "TRACEPARENT=", 12) == 0 && next < environment.entries + 1)
            *next++ = *entry;
    snprintf(environment.command, sizeof environment.command, "CNI_COMMAND=%s", command);
    *next++ = environment.command;
    snprintf(environment.container, sizeof environment.container, "CNI_CONTAINERID=%s", state.id);
    *next++ = environment.container;
    snprintf(environment.ifname, sizeof environment.ifname, "CNI_IFNAME=%s", asked.ifname);
    *next++ = environment.ifname;
    if (with_namespace) {
        snprintf(environment.netns, sizeof environment.netns, "CNI_NETNS=/proc/%u/ns/net",
                 state.pid);
        *next++ = environment.netns;
    }
    *next = NULL;
    environ = environment.entries;
}

/* The plugin's own keys, then what is said for every plugin: of keys that are there twice the last
 * one counts. */
static bool put_configuration(const struct member *plugin)
{
    struct buffer out = {.data = call.input, .size = sizeof call.input};
    size_t length = plugin->length;

    while (plugin->from[length - 1] != '}')
        length--;
    put_bytes(&out, plugin->from, length - 1);
    put_text(&out, ",\"cniVersion\":\"" CNI_NEWEST "\",\"name\":");
    put_json_text(&out, network.name);
    put_text(&out, ",\"runtimeConfig\":{\"" ANNOTATIONS_KEY "\":");
    if (state.annotations.from != NULL && *state.annotations.from != 'n') /* null */
        put_bytes(&out, state.annotations.from, state.annotations.length);
    else
        put_text(&out, "{}");
    put_text(&out, "}}");
    call.input_length = out.used;
    return !out.full;
}

static int attach(void)
{
    struct member plugin;

    if (!find_network(&network, asked.network, asked.file, call.message, sizeof call.message)
        || !find_plugin(&network, &plugin, call.message, sizeof call.message))
        return fail(call.message);
    if (!put_configuration(&plugin))
        return fail("the container's annotations and its network's configuration have more than 1 "
                    "MiB together");
    call.verb = ADD;
    set_environment("ADD", true);
    return hand_over();
}

/* The network's name is all that it needs: its file may be gone, or be another's by now. */
static int detach(void)
{
    struct buffer out = {.data = call.input, .size = sizeof call.input};
    const char *name = asked.network;

    if (name == NULL) {
        if (!find_network(&network, NULL, asked.file, call.message, sizeof call.message))
            return fail(call.message);
        name = network.name;
    }
    /* what CNI does not take was never attached */
    if (!is_identifier((const unsigned char *)state.id, strlen(state.id))
        || !is_identifier((const unsigned char *)name, strlen(name)) || !is_link_name(asked.ifname))
        return 0;
    put_text(&out, "{\"cniVersion\":\"" CNI_NEWEST "\",\"type\":\"weft\",\"name\":");
    put_json_text(&out, name);
    put_text(&out, "}");
    call.input_length = out.used;
    call.verb = DEL;
    set_environment("DEL", false);
    return hand_over();
}

int run_hook(int count, char **arguments)
{
    const char *wrong;

    call.hook = true;
    if (!read_arguments(count, arguments))
        return fail(call.message);
    wrong = read_state();
    if (wrong != NULL)
        return fail(wrong);
    if (is_over())
        return detach();
    if (is_beginning())
        return attach();
    snprintf(call.message, sizeof call.message,
             "the container is %s%s; weft's hook belongs to createRuntime (or prestart) and poststop",
             *state.status != '\0' ? state.status : "there", state.pid == 0 ? " without a pid" : "");
    return fail(call.message);
}

int tell_answer(const struct answer *answer)
{
    static char message[32 * 1024], details[32 * 1024];
    struct member found[] = {{.key = "msg"}, {.key = "details"}};

    if (answer->status == 0)
        return 0;
    scan_members(answer->output, answer->length, found, 2);
    if (!string_of(&found[0], message, sizeof message))
        snprintf(message, sizeof message, "the agent refused, and did not say why");
    if (!string_of(&found[1], details, sizeof details))
        *details = '\0';
    tell(message, details);
    return 1;
}
