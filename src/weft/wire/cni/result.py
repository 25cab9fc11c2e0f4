"""What an ADD promises, in the newest shape; every spec version converts to and from this.

A result travels along a chain of plugins as `prevResult`, so it is read strictly (an index that
points nowhere would point at the next plugin's interface) and addresses are kept as canonical
text. The shapes of the versions are in `versions/`, errors in `errors.py`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import msgspec

from weft.model.errors import Invalid
from weft.model.names import printable
from weft.wire.cni.document import convert, undecodable

MAX_ENTRIES = 1024
"""Interfaces, addresses or routes of one result."""
MAX_ADDRESS_TEXT = 64
"""Longer than any spelling of an address; bounds what is remembered."""


class Dns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Resolver settings, to be written by the runtime."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NO_DNS = Dns()


class Interface(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"socket_path": "socketPath", "pci_id": "pciID"},
):
    """A link of the attachment; `sandbox` is CNI_NETNS for links inside, empty on the host."""

    name: str = ""
    mac: str = ""
    mtu: int | None = None
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class Ip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address "a/len", its gateway, and the index of its interface in the result."""

    interface: int | None = None
    address: str
    gateway: str | None = None

    @property
    def version(self) -> str:
        """ "4" or "6", as results up to 0.4.0 spell it."""
        return family(self.address)


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route inside the container; without `gw` the gateway of the family's address counts."""

    dst: str
    gw: str | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None  # 0 global, 253 link, 254 host; 0 is not the same as absent


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything an attachment got. `Result()` is an empty result, not an absent one."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = NO_DNS

    def number_of(self, ifname: str) -> int | None:
        """The place among `interfaces` of the one in the container that bears this name."""
        for number, each in enumerate(self.interfaces):
            if each.name == ifname and each.sandbox:
                return number
        return None

    def addresses_of(self, ifname: str) -> tuple[str, ...]:
        """The addresses of that interface, without lengths, in order. One that names no interface
        counts where there is only one in the container."""
        number = self.number_of(ifname)
        alone = sum(bool(each.sandbox) for each in self.interfaces) == 1
        return tuple(
            dict.fromkeys(
                ip.address.partition("/")[0]
                for ip in self.ips
                if ip.interface == number or (ip.interface is None and alone)
            )
        )


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A `prevResult` that is there but cannot be understood; only DEL goes on with one."""

    why: str


def family(address: str) -> str:
    """ "6" for text with a colon, else "4"."""
    return "6" if ":" in address else "4"


def read(obj: object) -> Result:
    """A result in the newest shape or a subset of it, its keys projected by the version's file.

    Raises Invalid naming the field below `prevResult`.
    """
    raw = convert(obj, Result, "prevResult")
    return msgspec.structs.replace(
        raw,
        ips=tuple(_ip(ip, f"prevResult.ips[{n}]", raw) for n, ip in enumerate(raw.ips)),
        routes=tuple(_route(r, f"prevResult.routes[{n}]") for n, r in enumerate(raw.routes)),
    )


def merge(prev: Result | None, own: Result) -> Result:
    """What a chained ADD answers: everything of `prev` first, ours behind it and re-indexed."""
    if prev is None:
        return own
    shift = len(prev.interfaces)
    moved = tuple(
        ip if ip.interface is None else msgspec.structs.replace(ip, interface=ip.interface + shift)
        for ip in own.ips
    )
    return Result(
        interfaces=prev.interfaces + own.interfaces,
        ips=prev.ips + moved,
        routes=prev.routes + own.routes,
        dns=Dns(
            nameservers=_united(prev.dns.nameservers, own.dns.nameservers),
            domain=prev.dns.domain or own.dns.domain,
            search=_united(prev.dns.search, own.dns.search),
            options=_united(prev.dns.options, own.dns.options),
        ),
    )


def _united(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(first + then))


def _ip(ip: Ip, field: str, result: Result) -> Ip:
    index = ip.interface
    if index == -1:  # go-cni and old ocicni write this for "no interface"
        index = None
    if index is not None and not 0 <= index < len(result.interfaces):
        raise Invalid(
            f"{field}.interface: {index} is not an index of one of the "
            f"{len(result.interfaces)} interfaces",
            field=f"{field}.interface",
            reason="invalid-config",
        )
    return Ip(
        interface=index,
        address=_prefix(ip.address, f"{field}.address"),
        gateway=_address(ip.gateway, f"{field}.gateway"),
    )


def _route(route: Route, field: str) -> Route:
    return msgspec.structs.replace(
        route, dst=_prefix(route.dst, f"{field}.dst"), gw=_address(route.gw, f"{field}.gw")
    )


def _prefix(text: str, field: str) -> str:
    """ "a/len" in canonical form with its host bits kept; the length is required, in decimal."""
    address, slash, length = text.partition("/")
    if slash and length.isascii() and length.isdigit():
        canonical = _address(address, field)
        if canonical is not None and int(length[:4]) <= (128 if ":" in canonical else 32):
            return f"{canonical}/{int(length)}"
    raise undecodable(
        f"{field}: {printable(text)} is not an address with prefix length", field=field
    )


def _address(text: str | None, field: str) -> str | None:
    if not text:
        return None
    canonical = _canonical(text) if len(text) <= MAX_ADDRESS_TEXT else ""
    if not canonical:
        raise undecodable(f"{field}: {printable(text)} is not an IP address", field=field)
    return canonical


@lru_cache(maxsize=256)
def _canonical(text: str) -> str:
    """The text that the standard library writes; "" for what is no address or has a scope.

    Remembered, because gateways and default routes are the same in every result of a node.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return "" if "%" in text else str(address)
