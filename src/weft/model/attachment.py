"""An attachment: one interface of one container on one network, and the names derived from it.

Everything that the kernel holds for an attachment can be found again from its key alone: the host
link's name is a hash of the key, and the link's alias is a record from which the journal can be
rebuilt. Next: `fabric.wiring` turns an attachment into rows, `agent.journal` keeps it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Literal, Protocol

import msgspec

from weft.model.addresses import parse_address
from weft.model.bandwidth import Bandwidth
from weft.model.bridge import Bridged
from weft.model.errors import Invalid
from weft.model.ports import PortMapping

LINK_PREFIX = "wf"
HOST_LINK_LENGTH = len(LINK_PREFIX) + 13
LIMITER_PREFIX = "wb"
"""How the ifb is called through which goes what a container with a limited rate sends. Not as host
links are: the rules take every `wf` link for a pod's."""
LINK_PREFIXES = (LINK_PREFIX, LIMITER_PREFIX)
LIVE_GROUP = 0x77656674
"""IFLA_GROUP of host ends in use ("weft" in ASCII)."""
ALIAS_VERSION = 1
ALIAS_PREFIX = f"weft:{ALIAS_VERSION} "
ALIAS_MARK = "weft:"
_LIMITER_ALIAS = f"{ALIAS_MARK}limits "
ADOPTED_GROUP = 0x77656661
"""IFLA_GROUP of adopted host ends ("wefa" in ASCII)."""
ADOPTION_PREFIX = f"weft+{ALIAS_VERSION} "
"""How the record on an adopted link begins: not as on links of ours, which may be deleted."""
ALIAS_LIMIT = 255  # IFALIASZ - 1, include/uapi/linux/if.h
KEY_LIMIT = 170
"""Octets that network, container id and interface name may have together, so that the alias of a
dual-stack attachment always fits."""


class AttachmentKey(msgspec.Struct, frozen=True, order=True):
    """Identity of an attachment (CNI SPEC section 3; the network name since 0.4.0).

    A tuple of three, never a joined string: `-` is legal in every part.
    """

    network: str
    container: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container}/{self.ifname}"

    @property
    def digest(self) -> bytes:
        """SHA-256 over the three parts with NUL between; the launcher computes the same."""
        joined = "\0".join((self.network, self.container, self.ifname))
        return hashlib.sha256(joined.encode()).digest()

    @property
    def host_link(self) -> str:
        """Name of the host's end: `wf` and 65 bits of the digest, 15 octets in all."""
        text = base64.b32encode(self.digest[:10]).decode().lower()
        return LINK_PREFIX + text[: HOST_LINK_LENGTH - len(LINK_PREFIX)]

    @property
    def pod_mac(self) -> bytes:
        """Hardware address of the pod's end: locally administered, unicast, from the digest."""
        return bytes((0x0A,)) + self.digest[10:15]


HOST_MAC = bytes((0x0A, 0x77, 0x65, 0x66, 0x74, 0x00))
"""Hardware address of every host end. One for all, because each is alone on its pair; given at
creation, so that udev's MACAddressPolicy leaves it be (NET_ADDR_SET)."""


class PodRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The pod behind a container, as far as the runtime said: empty strings where it did not."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class NamespaceId(msgspec.Struct, frozen=True, kw_only=True):
    """Device and inode of a network namespace: a path may be used again, this pair tells."""

    dev: int
    ino: int


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """An address given to an attachment, with where it came from."""

    address: str  # without prefix length
    pool: str
    block: str  # CIDR
    sequence: int


class Adopted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The host's end of an interface that another plugin of the chain made: it stays the maker's,
    and gets back what it was when the attachment ends."""

    index: int
    group: int = 0  # IFLA_GROUP before
    signed: bool = True  # our record is its alias; False: it had one of its maker's, which stays
    localnet: str = "0"  # net/ipv4/conf/LINK/route_localnet before, of the bridge if there is one
    bridge: str = ""  # the bridge that the link is a port of: IP sees its packets come from there
    master: int = 0  # its number


class Former(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an attachment that other plugins made is on record: libcni's file about it, the files
    of host-local that reserve its addresses, and the directories in which its plugins are."""

    cache: str = ""
    reservations: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was promised to a container. `state` says how far the kernel has it:

    intent   written before the first effect; after a crash it is undone
    ready    ADD has answered or is about to
    leaving  DEL has begun; after a crash it is finished
    """

    key: AttachmentKey
    state: Literal["intent", "ready", "leaving"]
    host_link: str
    mac: bytes
    mtu: int
    addresses: tuple[Assigned, ...]
    netns: NamespaceId | None = None
    sandbox: str = ""
    pod: PodRef = PodRef()
    labels: dict[str, str] = {}
    masquerade: bool = True
    via4: bool = True  # an IPv4 default route inside the pod; False: another interface has it
    via6: bool = True  # an IPv6 default route inside the pod; otherwise cluster routes only
    ranges6: tuple[str, ...] = ()  # cluster ranges routed where there is no default route
    created: float = 0.0  # wall clock, for display only
    begun_ns: int = 0  # CLOCK_BOOTTIME at its ADD: a DEL that was queued earlier is not about it
    version: str = ""  # the CNI version of the ADD
    ports: tuple[PortMapping, ...] = ()  # what the node publishes for it
    bandwidth: Bandwidth = Bandwidth()
    bridged: Bridged | None = None  # None: its link is routed, a port of no bridge
    adopted: Adopted | None = None  # None: the link is ours
    hooked: bool = False  # made for the hook of an OCI runtime, whose DEL may never come
    egress: str = ""  # the digest of its list of where it may connect to; "": everywhere
    heard: bool = True  # False: the agent ended before it answered, so its runtime may not know
    former: Former | None = None
    """Of an imported one: nothing in the kernel is ours, only its addresses and ports are known.
    `host_link` is then its own link's name, or ""; `mac` may be empty; it is never an intent."""

    def having(self, state: Literal["intent", "ready", "leaving"]) -> Attachment:
        """The same attachment in another state."""
        return msgspec.structs.replace(self, state=state)

    @property
    def phase(self) -> str:
        """The state for a person: `imported` where other plugins made it."""
        return "imported" if self.former is not None and self.state == "ready" else self.state


def link_alias(attachment: Attachment) -> str:
    """The record in the host link's alias, at most 255 octets:

    `weft:1 NETWORK CONTAINER IFNAME MAC FLAGS ADDRESS[,ADDRESS] [NAMESPACE/POD]`

    FLAGS: `m` masqueraded, `4` and `6` default routes, `h` for an OCI hook, `e` an egress list, `b`
    on a bridge, `-` none. The pod's name is left out where it does not fit; labels are not kept
    here, a rebuilt journal learns them from the store. On an adopted link it begins with `weft+1`.
    """
    key = attachment.key
    flags = "".join(
        letter
        for letter, on in (
            ("m", attachment.masquerade),
            ("4", attachment.via4),
            ("6", attachment.via6),
            ("h", attachment.hooked),
            ("e", bool(attachment.egress)),
            ("b", attachment.bridged is not None),
        )
        if on
    )
    addresses = ",".join(a.address for a in attachment.addresses) or "-"
    start = ALIAS_PREFIX if attachment.adopted is None else ADOPTION_PREFIX
    record = start + " ".join(
        (key.network, key.container, key.ifname, attachment.mac.hex(), flags or "-", addresses)
    )
    pod = attachment.pod
    named = f"{record} {pod.namespace}/{pod.name}" if pod.name else record
    return named if len(named.encode()) <= ALIAS_LIMIT else record


def mark_of(attachment: Attachment) -> str | None:
    """The alias of the adopted link of an attachment; None: it keeps its maker's."""
    adopted = attachment.adopted
    return link_alias(attachment) if adopted is not None and adopted.signed else None


def limiter_of(host_link: str) -> str:
    """Name of the ifb of the attachment whose key gives this name to a host link."""
    return LIMITER_PREFIX + host_link[len(LINK_PREFIX) :]


def limiter_alias(host_link: str) -> str:
    """The record in the alias of an ifb."""
    return _LIMITER_ALIAS + host_link


def read_limiter_alias(alias: str) -> str | None:
    """The host link in the record of an ifb; None where it is not ours."""
    link = alias[len(_LIMITER_ALIAS) :]
    ours = alias.startswith(_LIMITER_ALIAS) and len(link) == HOST_LINK_LENGTH
    return link if ours and link.startswith(LINK_PREFIX) else None


class _Found(Protocol):
    """What is looked at of a link."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> int: ...
    @property
    def alias(self) -> str: ...


def _is_address(text: str) -> bool:
    """False for `-`, which is none, and for what somebody else wrote."""
    try:
        parse_address(text, "alias")
    except Invalid:
        return False
    return True


class AliasRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a host link's alias says; `addresses`: those that can be read."""

    key: AttachmentKey
    mac: bytes
    addresses: tuple[str, ...]
    masquerade: bool
    via4: bool
    via6: bool
    pod: PodRef
    hooked: bool = False
    listed: bool = False
    bridged: bool = False


def read_alias(alias: str) -> AliasRecord | None:
    """The record on a link of ours; None where it is not ours or of another version."""
    return _read_record(alias, ALIAS_PREFIX)


def read_adoption(alias: str) -> AliasRecord | None:
    """The record on an adopted link, likewise."""
    return _read_record(alias, ADOPTION_PREFIX)


def is_still(link: _Found, name: str, record: str | None) -> bool:
    """Whether the link that has an adopted one's number by now is that one: the kernel uses numbers
    again. Who is renamed keeps `record`, the alias that it got, or where it got none its group."""
    if link.name == name or (record is not None and link.alias == record):
        return True
    return link.group == ADOPTED_GROUP and read_adoption(link.alias) is None


def _read_record(alias: str, start: str) -> AliasRecord | None:
    if not alias.startswith(start):
        return None
    fields = alias[len(start) :].split(" ")
    if len(fields) not in (6, 7):
        return None
    network, container, ifname, mac, flags, addresses = fields[:6]
    try:
        octets = bytes.fromhex(mac)
    except ValueError:
        return None
    if len(octets) != len(HOST_MAC):
        return None
    namespace, _, name = fields[6].partition("/") if len(fields) == 7 else ("", "", "")
    return AliasRecord(
        key=AttachmentKey(network, container, ifname),
        mac=octets,
        addresses=tuple(text for text in addresses.split(",") if _is_address(text)),
        masquerade="m" in flags,
        via4="4" in flags,
        via6="6" in flags,
        bridged="b" in flags,
        hooked="h" in flags,
        listed="e" in flags,
        pod=PodRef(namespace=namespace, name=name),
    )
