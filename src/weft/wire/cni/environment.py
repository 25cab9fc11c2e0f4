"""What a runtime says in environment variables: verb, container, interface, namespace, CNI_ARGS.

All of it is checked here, in one pass and before anything else: a name that got through is safe in
a path, a log line and a link's alias. DEL is held only to what makes its key, for a runtime repeats
DEL with the same variables until it succeeds. Rules: SPEC section 2 and appendix "Parameters";
`CNI_PATH` is optional in every verb, because nothing is ever executed from it. Next: `request.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from weft.model.attachment import KEY_LIMIT
from weft.model.errors import Invalid
from weft.model.names import printable
from weft.wire.cni.versions.form import Command

MAX_IFNAME = 15
"""IFNAMSIZ - 1, include/uapi/linux/if.h."""
MAX_PATH = 4095
"""PATH_MAX - 1, include/uapi/linux/limits.h."""

ARGS_KNOWN = frozenset(
    {
        "IgnoreUnknown",
        "IP",
        "MAC",
        "WEFT_LABELS",
        "K8S_POD_NAME",
        "K8S_POD_NAMESPACE",
        "K8S_POD_UID",
        "K8S_POD_INFRA_CONTAINER_ID",
    }
)

_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
_REQUIRED: dict[Command, tuple[str, ...]] = {
    Command.ADD: _ATTACHMENT,
    Command.CHECK: _ATTACHMENT,
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.GC: (),
    Command.STATUS: (),
    Command.VERSION: (),
}
_STRICT = frozenset({Command.ADD, Command.CHECK})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IFNAME = re.compile(r"[^/:%\s]+")
# names of directories below /proc/sys/net/*/conf, and the loopback link every namespace has
_TAKEN_IFNAMES = frozenset({"all", "default", "lo"})
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}

Args = tuple[tuple[str, str], ...]


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The checked variables. Verbs without an attachment leave its fields empty."""

    command: Command
    container_id: str = ""
    ifname: str = ""
    netns: str | None = None
    args: Args = ()
    path: str = ""


def read_environment(env: Mapping[str, str]) -> Environment:
    """The variables of one request; raises Invalid `invalid-environment` (code 4)."""
    command = _command(env.get("CNI_COMMAND", ""))
    container_id = env.get("CNI_CONTAINERID") or env.get("CNI_PODID", "")  # rkt: CNI_PODID
    missing = [
        name
        for name in _REQUIRED[command]
        if not (container_id if name == "CNI_CONTAINERID" else env.get(name))
    ]
    if missing:
        raise invalid(f"required env variables [{','.join(missing)}] missing", missing[0])
    path = env.get("CNI_PATH", "")
    if not _REQUIRED[command]:
        return Environment(command=command, path=path)
    strict = command in _STRICT
    if not is_name(container_id):
        raise invalid(f"CNI_CONTAINERID: {printable(container_id)} {NAME_RULE}", "CNI_CONTAINERID")
    ifname = env["CNI_IFNAME"]
    check_ifname(ifname)
    return Environment(
        command=command,
        container_id=container_id,
        ifname=ifname,
        netns=_netns(env.get("CNI_NETNS", ""), strict),
        args=_args(env.get("CNI_ARGS", ""), strict),
        path=path,
    )


NAME_RULE = "has invalid characters; use letters, digits, '_', '.' and '-', not one of the \
last three first"


def is_name(text: str) -> bool:
    """Whether a container ID or network name is one by the specification."""
    return _NAME.fullmatch(text) is not None


def check_key_fits(network: str, container_id: str, ifname: str) -> None:
    """Network, container and interface name must fit the link's alias together."""
    size = len(network) + len(container_id) + len(ifname.encode())
    if size > KEY_LIMIT:
        raise invalid(
            f"CNI_CONTAINERID: network name, container ID and CNI_IFNAME have {size} bytes "
            f"together; at most {KEY_LIMIT} fit",
            "CNI_CONTAINERID",
        )


def invalid(message: str, field: str) -> Invalid:
    """An environment variable is wrong; the message names it."""
    return Invalid(message, field=field, reason="invalid-environment")


def _command(text: str) -> Command:
    if not text:
        raise invalid("required env variables [CNI_COMMAND] missing", "CNI_COMMAND")
    try:
        return Command(text)
    except ValueError:
        shown = printable(text)[1:-1]
        raise invalid(f"unknown CNI_COMMAND: {shown}", "CNI_COMMAND") from None


def check_ifname(ifname: str) -> None:
    """Whether a container's interface can have this name; raises Invalid."""
    if not _IFNAME.fullmatch(ifname) or not ifname.isprintable() or ifname in {".", ".."}:
        raise invalid(
            f"CNI_IFNAME: {printable(ifname)} is not an interface name: '/', ':', '%', blanks and "
            "unprintable characters are not allowed, nor are '.' and '..'",
            "CNI_IFNAME",
        )
    if len(ifname.encode()) > MAX_IFNAME:
        raise invalid(
            f"CNI_IFNAME: {printable(ifname)} is longer than {MAX_IFNAME} bytes", "CNI_IFNAME"
        )
    if ifname in _TAKEN_IFNAMES:
        raise invalid(
            f"CNI_IFNAME: {printable(ifname)} is a name that no container interface may have",
            "CNI_IFNAME",
        )


def _netns(path: str, strict: bool) -> str | None:
    if path.startswith("/") and "\0" not in path and len(path) <= MAX_PATH and _is_text(path):
        return path
    if strict:
        raise invalid(f"CNI_NETNS: {printable(path)} is not an absolute path in UTF-8", "CNI_NETNS")
    return None  # DEL: no namespace to look into, the host side is enough


def _is_text(path: str) -> bool:
    """Whether it was UTF-8: the result repeats the path in JSON, which cannot say other bytes."""
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)


def _args(text: str, strict: bool) -> Args:
    """`K=V;K=V`; the last of several counts.

    A value of ours has no `=`, as in the Go libraries; what belongs to others may (Nomad passes
    names of jobs). Without IgnoreUnknown an unknown key is an error. DEL takes what it can read and
    leaves the rest.
    """
    if not text:
        return ()
    pairs: dict[str, str] = {}
    for number, item in enumerate(text.split(";"), 1):
        key, equals, value = item.partition("=")
        if key and equals and ("=" not in value or key not in ARGS_KNOWN):
            pairs[key] = value
        elif strict:  # named by its place: what it holds may be a secret, and errors are logged
            raise invalid(f"CNI_ARGS: invalid pair, number {number}; use KEY=VALUE", "CNI_ARGS")
    if strict and not _ignores_unknown(pairs.get("IgnoreUnknown", "0")):
        unknown = [key for key in pairs if key not in ARGS_KNOWN]
        if unknown:
            shown = ", ".join(printable(key, 32) for key in unknown[:4])
            raise invalid(
                f"CNI_ARGS: unknown args [{shown}]; add IgnoreUnknown=1 to have them ignored",
                "CNI_ARGS",
            )
    return tuple(pairs.items())


def _ignores_unknown(value: str) -> bool:
    found = _BOOLEANS.get(value.lower())
    if found is None:
        raise invalid(
            f"CNI_ARGS: IgnoreUnknown={printable(value)} is neither 1, true, 0 nor false",
            "CNI_ARGS",
        )
    return found
