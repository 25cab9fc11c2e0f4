"""Ports of the node that lead to a container: `portMappings` of CNI's conventions.

A published port is one of the node's own. `host_ip` "" means every address of the node in both
families, "0.0.0.0" and "::" every address of one. Next: `wire.cni.port_wishes` reads every
spelling, `agent` keeps the ledger that gives no port twice.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from weft.model.addresses import parse_address
from weft.model.errors import Invalid

Protocol = Literal["tcp", "udp", "sctp"]
PROTOCOLS: dict[Protocol, int] = {"tcp": 6, "udp": 17, "sctp": 132}
"""Names, and the numbers that IANA gave them."""
MAX_PORT = 65535
MAX_PORTS = 4096
"""Mappings of one attachment."""
_EVERY = {"": (4, 6), "0.0.0.0": (4,), "::": (6,)}  # noqa: S104


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, order=True):
    """`protocol` and `host_port` of the node, on `host_ip`, lead to `container_port` of the
    container."""

    protocol: Protocol = "tcp"
    host_port: int
    container_port: int
    host_ip: str = ""

    def __str__(self) -> str:
        ip = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        return f"{ip}:{self.host_port}->{self.container_port}/{self.protocol}"

    @property
    def every(self) -> bool:
        """Whether every address of a family is meant, not one."""
        return self.host_ip in _EVERY

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6, or both."""
        return _EVERY.get(self.host_ip) or ((6,) if ":" in self.host_ip else (4,))

    def collides(self, other: PortMapping) -> bool:
        """Whether one packet could be meant for both."""
        if (self.protocol, self.host_port) != (other.protocol, other.host_port):
            return False
        if not set(self.families) & set(other.families):
            return False
        return self.every or other.every or self.host_ip == other.host_ip


def check_mappings(mappings: tuple[PortMapping, ...], field: str) -> None:
    """Raise Invalid where two of one container want the same port, or there are too many."""
    if len(mappings) > MAX_PORTS:
        raise Invalid(f"{field}: more than {MAX_PORTS} ports", field=field)
    seen: dict[tuple[str, int], list[tuple[int, PortMapping]]] = {}
    for number, mapping in enumerate(mappings):
        beside = seen.setdefault((mapping.protocol, mapping.host_port), [])
        for first, other in beside:
            if mapping.collides(other):
                place = f"{field}[{number}]"
                raise Invalid(
                    f"{place}: {mapping} asks for the same port as {field}[{first}]", field=place
                )
        beside.append((number, mapping))


def parse_host_ip(text: str, field: str) -> str:
    """The address in its canonical spelling. Raises Invalid."""
    return str(parse_address(text, field)) if text else ""
