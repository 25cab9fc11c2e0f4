"""Where something listens, as people write it: `ADDRESS:PORT`, `[IPV6]:PORT`, `unix:/PATH`, `off`.

Addresses only, no names: what a name means may change, and looking it up may wait.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from weft.model.errors import Invalid

UNIX_PATH = 103
"""Octets of a unix socket's path: sun_path has 108 with its NUL (unix(7)), and the socket is made
under a name that is four longer."""

_WITH_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+):([0-9]{1,5})")


class Tcp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An address and a port of TCP; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unix(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A unix socket's absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Listening = Tcp | Unix


def read_listening(text: str, field: str, *, reason: str = "invalid-settings") -> Listening | None:
    """What the text says; None for `off`. Raises Invalid that names `field`."""
    if text == "off":
        return None
    if text.startswith("unix:"):
        return Unix(path=_path(text.removeprefix("unix:"), field, reason))
    found = _WITH_PORT.fullmatch(text)
    if found is None:
        raise Invalid(
            f"{field}: {text!a} is none of ADDRESS:PORT, [IPV6]:PORT, unix:/PATH and off",
            field=field,
            reason=reason,
        )
    host, port = found[1].strip("[]"), int(found[2])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Invalid(f"{field}: {host!a} is not an address", field=field, reason=reason) from None
    if (address.version == 6) != found[1].startswith("["):
        raise Invalid(
            f"{field}: an IPv6 address stands in brackets, an IPv4 address does not",
            field=field,
            reason=reason,
        )
    if port > 65535:
        raise Invalid(f"{field}: port {port} is not within 0..65535", field=field, reason=reason)
    return Tcp(host=str(address), port=port)


def _path(path: str, field: str, reason: str) -> str:
    if not path.startswith("/") or "\0" in path or "/../" in f"{path}/":
        raise Invalid(
            f"{field}: unix: needs an absolute path without '..'", field=field, reason=reason
        )
    if len(path.encode()) > UNIX_PATH:
        raise Invalid(
            f"{field}: longer than {UNIX_PATH} bytes, which a unix socket leaves room for",
            field=field,
            reason=reason,
        )
    return path
