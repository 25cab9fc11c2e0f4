"""The error catalogue: one line a reason, looked up by `weft explain`.

docs/reference/errors.md and the table of CNI codes are generated from it, and a test fails when
a reason raised anywhere in the source is missing here. CNI codes: SPEC.md 1.1.0 "Error"; 8 and
999 are what the Go libraries use for a bad namespace and for everything else.
"""

from __future__ import annotations

import msgspec


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """What a reason means. `cni`: the CNI error code; `early`: decided before the first effect."""

    cni: int
    early: bool
    summary: str
    action: str


REASONS: dict[str, Reason] = {
    "internal": Reason(
        cni=999,
        early=False,
        summary="weft met a situation that its code does not foresee; whatever was begun is undone",
        action="run `weft doctor`, and report the agent's log lines of this attachment",
    ),
    "incompatible-version": Reason(
        cni=1,
        early=True,
        summary="the configuration asks for a CNI version this plugin does not speak",
        action="use one of the versions in `details`",
    ),
    "version-lacks-verb": Reason(
        cni=1,
        early=True,
        summary="the configuration's CNI version has no such verb (CHECK from 0.4.0, "
        "GC and STATUS from 1.1.0)",
        action="raise cniVersion in the configuration, or do not call the verb",
    ),
    "unsupported-field": Reason(
        cni=2,
        early=True,
        summary="a field of the configuration has a value that weft does not support",
        action="change or remove the field that the message names",
    ),
    "unknown-container": Reason(
        cni=3,
        early=True,
        summary="the container is not known and there is nothing to clean up",
        action="none",
    ),
    "invalid-environment": Reason(
        cni=4,
        early=True,
        summary="an environment variable of the CNI protocol is missing or malformed",
        action="correct the variables that the message names",
    ),
    "io-failure": Reason(
        cni=5,
        early=True,
        summary="standard input could not be read or is larger than the bound",
        action="pass the network configuration on standard input, at most 1 MiB",
    ),
    "decode-failure": Reason(
        cni=6,
        early=True,
        summary="the network configuration is not JSON of the expected shape",
        action="correct the field that the message names",
    ),
    "invalid-config": Reason(
        cni=7,
        early=True,
        summary="the network configuration is JSON but its content is not valid",
        action="correct the field that the message names",
    ),
    "invalid-netns": Reason(
        cni=8,
        early=True,
        summary="CNI_NETNS is not a network namespace, is gone, or is the host's own",
        action="pass the path of the container's network namespace",
    ),
    "interface-exists": Reason(
        cni=7,
        early=True,
        summary="the container already has an interface of the name in CNI_IFNAME",
        action="choose another CNI_IFNAME, or DEL the attachment first",
    ),
    "not-ready": Reason(
        cni=11,
        early=True,
        summary="the node is not ready to attach containers yet",
        action="try again; `weft status` says what is missing",
    ),
    "agent-absent": Reason(
        cni=11,
        early=True,
        summary="the launcher could not reach the agent",
        action="start the agent (`weft agent`, or its service unit) and try again",
    ),
    "busy": Reason(
        cni=11,
        early=True,
        summary="an operation for the same attachment is still running, or DEL overtook this ADD",
        action="try again",
    ),
    "exhausted": Reason(
        cni=11,
        early=True,
        summary="no address is left in the pools this pod may use",
        action="add an IPPool or enlarge one; `weft ipam show` lists use per pool",
    ),
    "address-taken": Reason(
        cni=7,
        early=True,
        summary="the requested address is in use, reserved, or not allowed to this pod",
        action="request an address that `weft ipam show` lists as free, inside a pool this "
        "namespace may use",
    ),
    "plugin-unavailable": Reason(
        cni=50,
        early=True,
        summary="STATUS: the node cannot serve ADD now",
        action="`weft status` says what is missing",
    ),
    "degraded": Reason(
        cni=51,
        early=True,
        summary="STATUS: the node cannot serve ADD and attached containers may be impaired",
        action="`weft status` says what is missing",
    ),
    "check-failed": Reason(
        cni=999,
        early=True,
        summary="CHECK found differences between what ADD promised and what the kernel holds",
        action="`details` names each difference; recreate the pod, or let the agent repair the "
        "host side",
    ),
    "kernel-refused": Reason(
        cni=999,
        early=False,
        summary="the kernel refused an operation; what had been done for the attachment is undone",
        action="read errno and operation in the message; `weft doctor` checks for what is missing",
    ),
    "system-call-failed": Reason(
        cni=5,
        early=False,
        summary="the system refused something that the agent needs, such as a socket or a file; "
        "what had been done for the attachment is undone",
        action="look for the errno of the message in the kernel's log (`dmesg`), mend what it "
        "names, and try again",
    ),
    "out-of-resources": Reason(
        cni=11,
        early=False,
        summary="memory, descriptors or space ran out on the node; what had been done for the "
        "attachment is undone",
        action="try again; free what the message names, or raise the agent's limits "
        "(LimitNOFILE=, MemoryMax=)",
    ),
    "unsupported": Reason(
        cni=2,
        early=True,
        summary="this node, kernel or release cannot do what was asked",
        action="see `weft status` for the node's capabilities",
    ),
    "not-adoptable": Reason(
        cni=7,
        early=True,
        summary="another plugin of the chain made the interface, and weft cannot guard it: it is "
        "no veth with its other end on the node, or has no address, or somebody limits it already",
        action="do as the message says: let ptp make the interface, or let weft make it and take "
        "the other plugin out of the list",
    ),
    "no-bridge": Reason(
        cni=2,
        early=True,
        summary="the container is to be on a bridge, and this kernel cannot guard ports of bridges",
        action="leave `mode` out, or use a kernel with what the message names",
    ),
    "no-bandwidth": Reason(
        cni=2,
        early=True,
        summary="the container's bandwidth is to be limited, and this kernel cannot do it",
        action="take the limits away, or use a kernel with what the message names",
    ),
    "unsupported-kernel": Reason(
        cni=2,
        early=True,
        summary="the kernel of this machine is older than weft is made for; nothing was touched",
        action="boot Linux 5.15 or newer; `weft doctor` says whether it has what weft needs",
    ),
    "install-refused": Reason(
        cni=999,
        early=True,
        summary="weft cannot be installed or uninstalled on this node as things are; nothing was "
        "changed",
        action="mend what the message names and run it again; `weft install --dry-run` only looks",
    ),
    "upgrade-refused": Reason(
        cni=999,
        early=True,
        summary="a release cannot take over on this node as things are; nothing was changed",
        action="mend what the message names and run it again; `weft upgrade --dry-run` only checks",
    ),
    "upgrade-failed": Reason(
        cni=999,
        early=False,
        summary="a release could not take over; what was there before was put back, unless the "
        "message says otherwise",
        action="read the agent's log lines in the message; run it again, or go on with the "
        "release that runs",
    ),
    "agent-alive": Reason(
        cni=999,
        early=True,
        summary="packet rules are not taken away as long as somebody lives who would put them back",
        action="stop the agent and what starts it, as the message says, or let "
        "`weft break-glass --force` do it; docs/break-glass.md",
    ),
    "tables-held": Reason(
        cni=999,
        early=True,
        summary="the kernel lets only the socket that owns weft's tables change them",
        action="end the process in the message, then repeat the command; docs/break-glass.md",
    ),
    "not-confirmed": Reason(
        cni=999,
        early=True,
        summary="a question was not answered with yes, so nothing was done",
        action="repeat the command and answer, or say --yes",
    ),
    "not-found": Reason(
        cni=3,
        early=True,
        summary="the named object does not exist",
        action="`weft get KIND` lists the objects that do",
    ),
    "conflict": Reason(
        cni=11,
        early=True,
        summary="somebody else changed the object first",
        action="read it again and repeat the change",
    ),
    "compacted": Reason(
        cni=11,
        early=True,
        summary="the store no longer holds the history from which a watch wanted to resume",
        action="list again and watch from the revision of that list",
    ),
    "metrics-not-listening": Reason(
        cni=999,
        early=True,
        summary="metrics and health cannot be had where the settings say; the network works",
        action="free the address and port that the message names, or set `metrics.listen`",
    ),
    "journal-unwritable": Reason(
        cni=11,
        early=True,
        summary="the agent cannot write its journal, so it begins nothing new",
        action="free space on the file system of /run/weft and try again",
    ),
    "given-unwritable": Reason(
        cni=11,
        early=True,
        summary="the values that sysctls had before weft cannot be kept beside the store; the "
        "journal still has them",
        action="free space on the file system of /var/lib/weft, or make it writable",
    ),
    "state-newer": Reason(
        cni=11,
        early=True,
        summary="a file or a link's record was written by a newer release of weft; it was left "
        "untouched",
        action="run that release again, or its `weft agent --teardown` before this one",
    ),
    "invalid-object": Reason(
        cni=7,
        early=True,
        summary="a manifest or a stored object is not one that weft understands",
        action="correct the field that the message names; `docs/reference/kinds.md` lists all",
    ),
    "unknown-kind": Reason(
        cni=7,
        early=True,
        summary="no kind of object has this name",
        action="use one of the kinds that `docs/reference/kinds.md` lists",
    ),
    "invalid-settings": Reason(
        cni=7,
        early=True,
        summary="the settings file holds an unknown key or a value out of range",
        action="correct the field that the message names; `docs/reference/settings.md` lists all",
    ),
    "port-taken": Reason(
        cni=7,
        early=True,
        summary="a host port that the container asks for is published already, or a program of the "
        "node has it",
        action="ask for the port that the message names as free, or end who has it; `weft get "
        "ports` lists all",
    ),
    "address-cooling": Reason(
        cni=11,
        early=True,
        summary="the requested address was released a moment ago and is kept back so that old "
        "connections do not reach its next owner",
        action="try again after the time in the message",
    ),
    "store-unavailable": Reason(
        cni=11,
        early=True,
        summary="the store cannot be read or written now, e.g. the disk is full or another "
        "process holds the file",
        action="read the message; free space, or end the other process, and try again",
    ),
    "store-damaged": Reason(
        cni=11,
        early=True,
        summary="the store's file was lost or damaged; it was written anew with what the node "
        "still knew, and the damaged one is kept beside it",
        action="compare `weft get` with your manifests; delete the file that the message names",
    ),
    "objects-lost": Reason(
        cni=11,
        early=True,
        summary="objects were in a store that was lost or damaged and could not be brought back",
        action="apply their manifests again",
    ),
    "store-newer": Reason(
        cni=11,
        early=True,
        summary="the store's file was written by a newer release of weft; it was left untouched",
        action="run that release again, or move the file away to begin anew",
    ),
    "unknown-method": Reason(
        cni=999,
        early=True,
        summary="the command line called something that the agent does not offer",
        action="bring command line and agent to one release; `weft version` shows both",
    ),
    "invalid-call": Reason(
        cni=999,
        early=True,
        summary="a call of the agent's API has params that are not of the expected shape",
        action="correct the field that the message names; `weft version` shows whether command "
        "line and agent are of one release",
    ),
    "invalid-argument": Reason(
        cni=999,
        early=True,
        summary="an argument or option of the command line makes no sense",
        action="`weft COMMAND --help` has examples",
    ),
    "ambiguous-name": Reason(
        cni=999,
        early=True,
        summary="several things begin with the name that was given",
        action="give more of the name, as `weft get attachments` lists it",
    ),
    "owned-by-agent": Reason(
        cni=7,
        early=True,
        summary="the object is written by agents and not by people",
        action="read in the message what to change instead",
    ),
    "pool-overlap": Reason(
        cni=7,
        early=True,
        summary="the range of the pool overlaps that of another pool",
        action="choose a free range; `weft get ippools` lists those in use",
    ),
    "pool-problem": Reason(
        cni=7,
        early=True,
        summary="a pool is set aside because it is not valid or overlaps an older one, or a block "
        "does not fit its pool; the others serve",
        action="correct or delete the object that the message names; `weft get ippools` lists "
        "the pools",
    ),
    "pool-in-use": Reason(
        cni=7,
        early=True,
        summary="the pool cannot be deleted while pods have addresses from it",
        action="disable it (spec.disabled: true), wait until `weft ipam show` says 0 used, then "
        "delete it",
    ),
    "label-exists": Reason(
        cni=7,
        early=True,
        summary="the label already has another value",
        action="repeat the command with --overwrite",
    ),
    "unsafe-path": Reason(
        cni=11,
        early=True,
        summary="a file or directory of weft's is a link, a pipe or the like, or others than root "
        "can write it",
        action="see who made what the message names, then move it away or give it to root alone",
    ),
    "not-permitted": Reason(
        cni=999,
        early=True,
        summary="members of `socket.group` may read, and this would change something",
        action="run it as root, e.g. with sudo",
    ),
    "protocol-version": Reason(
        cni=11,
        early=True,
        summary="launcher or command line and agent are of releases too far apart to understand "
        "each other",
        action="bring them to one release; `weft version` shows both",
    ),
    "foreign-firewall": Reason(
        cni=999,
        early=True,
        summary="another packet filter of the host drops pods' packets; an accept of weft's cannot "
        "override a drop of another's",
        action="run the commands in the message, or set foreignFirewall to admit and restart the "
        "agent; docs/beside-others.md",
    ),
    "egress-lost": Reason(
        cni=999,
        early=True,
        summary="containers have egress lists of which neither the journal nor the rules know any "
        "more what they allow, so they allow nothing",
        action="make the containers that `weft get attachments -o wide` shows as unknown anew",
    ),
    "not-isolated": Reason(
        cni=999,
        early=True,
        summary="containers of a network reach each other on their bridge without the node's rules",
        action="leave `isolation: false` out of the network's configuration, unless its containers "
        "need broadcast or multicast among each other; docs/attach.md",
    ),
    "contested": Reason(
        cni=999,
        early=True,
        summary="somebody changes an object of weft's again as soon as it is mended, so it is "
        "mended every few seconds only",
        action="find out who with `ip monitor` and `nft monitor`, and stop it; docs/healing.md",
    ),
    "peer-fault": Reason(
        cni=11,
        early=False,
        summary="the other side of a socket broke the protocol or went away",
        action="try again; if it persists compare the versions of launcher, CLI and agent",
    ),
}


def cni_code(reason: str) -> int:
    """The CNI error code of a reason; 999 for a reason that the table does not know."""
    entry = REASONS.get(reason)
    return entry.cni if entry is not None else 999
