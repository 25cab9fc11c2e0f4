"""The agent's API: one table of methods, with their params and results as structs.

Both ends read this table: the agent converts params by it before a method runs, the command line
converts results by it. Frames and the outer shape of a call are `local.py`'s. Objects travel as
plain data in the shape of a manifest, so that a reader one release behind can still print them.
Params refuse unknown fields (a typo must not be taken for a wish); results tolerate them.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec

from weft.model.errors import Invalid, WeftError
from weft.model.ports import PortMapping
from weft.model.selectors import Selector
from weft.model.strict import convert_strictly
from weft.wire.status import PoolUse, Report, Status

API_FORMAT = 1
Plain = dict[str, Any]
"""An object as plain data: apiVersion, kind, metadata, spec, status."""


class Params(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename="camel",
):
    """Base of what a method takes."""


class Nothing(Params, frozen=True, kw_only=True):
    """A method without params."""


class ListParams(Params, frozen=True, kw_only=True):
    """`namespace` None: all of them."""

    kind: str
    namespace: str | None = None
    selector: Selector | None = None


class GetParams(Params, frozen=True, kw_only=True):
    """Of a view, `name` may be any beginning of its name or container id that is unique."""

    kind: str
    name: str
    namespace: str = ""


class WatchParams(Params, frozen=True, kw_only=True):
    """Like `list`; `after` is the revision of a list, or None: begin with what there is."""

    kind: str
    namespace: str | None = None
    name: str | None = None
    selector: Selector | None = None
    after: int | None = None


class EventsParams(Params, frozen=True, kw_only=True):
    """The newest `limit` events, all or those about one thing."""

    about: str | None = None
    limit: int = 100


class ConnectionsParams(Params, frozen=True, kw_only=True):
    """Connections of pods of `namespace`, of these `pods` (NAMESPACE/NAME, NAME, link, or the
    beginning of a container id), of pods with these labels; with this `port` at the server's side,
    as it was asked for or as it is; of this `protocol` (a name, or IANA's number). None and ():
    any."""

    namespace: str | None = None
    pods: tuple[str, ...] = ()
    selector: Selector | None = None
    port: int | None = None
    protocol: str | None = None


class ApplyParams(Params, frozen=True, kw_only=True):
    """`dry_run`: say what would happen, and do nothing."""

    object: Plain
    dry_run: bool = False


class DeleteParams(Params, frozen=True, kw_only=True):
    """`force`: delete even what is in use."""

    kind: str
    name: str
    namespace: str = ""
    force: bool = False


class LabelParams(Params, frozen=True, kw_only=True):
    """Labels to set and keys to remove; a pod or namespace that does not exist is created."""

    kind: str
    name: str
    namespace: str = ""
    set: dict[str, str] = {}
    remove: tuple[str, ...] = ()
    overwrite: bool = False


class ReleaseParams(Params, frozen=True, kw_only=True):
    """`force`: also an address that an attachment or a namespace still has."""

    address: str
    force: bool = False


class FormerContainer(Params, frozen=True, kw_only=True):
    """One interface of one container that other plugins made, as they have it on record. `netns`:
    path of its namespace; `routed`: families of its default routes; `written`: wall clock;
    `cache`, `reservations`: files of libcni's and host-local's; `plugins`: directories."""

    network: str
    container: str
    ifname: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    netns: str = ""
    link: str = ""
    mac: str = ""
    mtu: int = 0
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    version: str = ""
    routed: tuple[int, ...] = ()
    cache: str = ""
    reservations: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    written: float = 0.0


class ImportParams(Params, frozen=True, kw_only=True):
    """Containers to know from now on. `last`: then also forget those that their own plugins have
    let go of. `dry_run`: say what would happen, and do nothing."""

    containers: tuple[FormerContainer, ...] = ()
    last: bool = False
    dry_run: bool = False


class Objects(Report, frozen=True, kw_only=True):
    """A list, sorted by key. `unreadable`: stored things that this release cannot decode."""

    items: tuple[Plain, ...] = ()
    revision: int = 0
    unreadable: tuple[str, ...] = ()


class WatchItem(Report, frozen=True, kw_only=True):
    """One change; `revision` is where a later watch may resume, 0 for views."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Plain
    revision: int = 0


class Changed(Report, frozen=True, kw_only=True):
    """What became of an object, in kubectl's words."""

    kind: str
    name: str
    namespace: str = ""
    result: Literal["created", "configured", "unchanged", "deleted", "labeled", "unlabeled"]
    warnings: tuple[str, ...] = ()


class AddressUse(Report, frozen=True, kw_only=True):
    """One address that is not free: `state` is used, cooling or reserved."""

    address: str
    pool: str
    state: str
    owner: str = ""  # attachment key, reservation's owner, or the note


class BlockUse(Report, frozen=True, kw_only=True):
    """One block that this node holds."""

    cidr: str
    pool: str
    used: int = 0
    cooling: int = 0
    free: int = 0
    sequence: int = 0


class IpamShow(Report, frozen=True, kw_only=True):
    """Use of addresses on this node."""

    node: str = ""
    pools: tuple[PoolUse, ...] = ()
    blocks: tuple[BlockUse, ...] = ()
    addresses: tuple[AddressUse, ...] = ()


class ImportedItem(Report, frozen=True, kw_only=True):
    """What became of one container: imported, changed (it was known otherwise), known, own (weft
    attached it), leaving, or refused."""

    network: str
    container: str
    ifname: str = ""
    result: str
    why: str = ""


class Imported(Report, frozen=True, kw_only=True):
    """The answer to `import`. `gone`: keys of those that were forgotten."""

    items: tuple[ImportedItem, ...] = ()
    gone: tuple[str, ...] = ()


class IpamProblem(Report, frozen=True, kw_only=True):
    """One difference between allocations, journal and kernel; `what`: leaked, duplicate, ..."""

    what: str
    address: str
    text: str
    mend: str = ""


class IpamCheck(Report, frozen=True, kw_only=True):
    """The audit; no problems: everything agrees."""

    addresses: int = 0
    attachments: int = 0
    problems: tuple[IpamProblem, ...] = ()


class Released(Report, frozen=True, kw_only=True):
    """An address that is free again; `cooling`: seconds until it may be given out."""

    address: str
    pool: str
    owner: str = ""
    cooling: float = 0.0


class Finding(Report, frozen=True, kw_only=True):
    """One line of `weft doctor`; `mend` is a command, or empty where none helps. `steps`: its
    commands, word by word, where a machine may run them (`weft doctor --fix`). `owner`: whose thing
    they change, where it is neither weft's nor the node's own."""

    id: str
    level: Literal["ok", "warn", "bad"]
    text: str
    mend: str = ""
    steps: tuple[tuple[str, ...], ...] = ()
    owner: str = ""


class Findings(Report, frozen=True, kw_only=True):
    """What the agent found; the command line adds its own."""

    items: tuple[Finding, ...] = ()


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One method. `streams`: items of `result` come until the caller goes away. `paced`: the
    next is made when the caller has taken the last. `reads`: it changes nothing and tells no
    secret, so members of `socket.group` may call it."""

    params: type[Params]
    result: type[Any]
    streams: bool = False
    paced: bool = False
    reads: bool = False


METHODS: dict[str, Method] = {
    "status": Method(params=Nothing, result=Status, reads=True),
    "events": Method(params=EventsParams, result=Objects, reads=True),
    "list": Method(params=ListParams, result=Objects, reads=True),
    "get": Method(params=GetParams, result=dict, reads=True),
    "watch": Method(params=WatchParams, result=WatchItem, streams=True, reads=True),
    "connections": Method(
        params=ConnectionsParams, result=Objects, streams=True, paced=True, reads=True
    ),
    "apply": Method(params=ApplyParams, result=Changed),
    "delete": Method(params=DeleteParams, result=Changed),
    "label": Method(params=LabelParams, result=Changed),
    "ipam.show": Method(params=Nothing, result=IpamShow, reads=True),
    "ipam.check": Method(params=Nothing, result=IpamCheck, reads=True),
    "ipam.release": Method(params=ReleaseParams, result=Released),
    "import": Method(params=ImportParams, result=Imported),
    "findings": Method(params=Nothing, result=Findings, reads=True),
}


def check_permitted(method: str, group: str) -> None:
    """Raise `WeftError` (reason not-permitted) where a member of `group` may not call the method;
    "" is root, who may call all."""
    known = METHODS.get(method)
    if group and known is not None and not known.reads:
        readable = ", ".join(name for name, each in METHODS.items() if each.reads)
        raise WeftError(
            f"members of group {group} may not call {method}, only what reads ({readable}); run "
            "it as root, e.g. with sudo",
            reason="not-permitted",
        )


def decode_params(method: str, data: Any) -> Params:
    """Params of a call; `Invalid` (reason invalid-call) names the field."""
    known = METHODS.get(method)
    if known is None:
        raise Invalid(
            f"the agent has no method {method[:80]!a}; command line and agent may be of "
            "different releases (`weft version` shows both)",
            field="method",
            reason="unknown-method",
        )
    return convert_strictly(data, known.params, reason="invalid-call", prefix="params")


def encode_params(params: Params) -> Plain:
    """Params as plain data, without what is left at its default."""
    return cast(Plain, msgspec.to_builtins(params))


def decode_result(method: str, data: Any) -> Any:
    """A result or stream item as the struct that the table names; `WeftError` if it is none."""
    try:
        return msgspec.convert(data, METHODS[method].result, strict=True)
    except msgspec.ValidationError as error:
        raise WeftError(
            f"the agent's answer to {method} is not of the expected shape ({error}); command line "
            "and agent may be of different releases (`weft version` shows both)",
            reason="peer-fault",
        ) from error
