"""Bridge mode: what of an attachment says on which bridge it is, and the names derived from that.

One network of one node has one bridge, with one subnet of each family: the network's pool. The
record in the bridge's alias is enough to know it again without the journal.
"""

from __future__ import annotations

import base64
import hashlib

import msgspec

BRIDGE_PREFIX = "wn"
"""How a bridge is called that the configuration does not name. Not as host links are."""
_ALIAS = "weft:bridge "


class Bridged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bridge whose port an attachment's host link is."""

    bridge: str
    isolated: bool = True  # ports reach each other through the node only
    gateway: str = ""  # the bridge's own IPv4 address with the subnet's length; "": no IPv4
    prefix6: int = 0  # the length of the IPv6 subnet; 0: no IPv6


class BridgeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge's alias says."""

    network: str
    bridged: Bridged


def bridge_name(network: str) -> str:
    """The name of a network's bridge that the configuration does not name."""
    text = base64.b32encode(hashlib.sha256(network.encode()).digest()[:10]).decode().lower()
    return BRIDGE_PREFIX + text[:13]


def bridge_mac(network: str) -> bytes:
    """Hardware address of a network's bridge, which no port changes as it comes or goes."""
    return bytes((0x0A,)) + hashlib.sha256(network.encode()).digest()[10:15]


def bridge_owner(bridge: str) -> str:
    """Under which name the engine knows the rows of a bridge."""
    return f"bridge {bridge}"


def bridge_alias(network: str, bridged: Bridged) -> str:
    """The record of a bridge: `weft:bridge NAME NETWORK FLAGS GATEWAY PREFIX6`.

    FLAGS: `i` isolated, `o` one broadcast domain. GATEWAY `-`: none.
    """
    flags = "i" if bridged.isolated else "o"
    fields = bridged.bridge, network, flags, bridged.gateway or "-", str(bridged.prefix6)
    return _ALIAS + " ".join(fields)


def read_bridge_alias(alias: str) -> BridgeRecord | None:
    """The record of an alias; None where it is not ours."""
    fields = alias[len(_ALIAS) :].split(" ")
    if not alias.startswith(_ALIAS) or len(fields) != 5 or not fields[4].isdecimal():
        return None
    name, network, flags, gateway, prefix6 = fields
    bridged = Bridged(
        bridge=name,
        isolated=flags == "i",
        gateway="" if gateway == "-" else gateway,
        prefix6=int(prefix6),
    )
    return BridgeRecord(network=network, bridged=bridged)
