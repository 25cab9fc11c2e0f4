"""The IPv4 addresses of bridges, which are their containers' gateways.

One that the pool names is given to nobody else anyway; any other is held in the book of addresses
like a container's, by a key that no container can have. It is kept with the attachments on the
bridge and in the bridge's own record, so a start finds it in either, and given back with the last.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, ip_interface

import msgspec

from weft.agent.addresses import Addresses, Wish
from weft.agent.table import Attachments
from weft.ipam.request import NeedBlock
from weft.model.addresses import Address
from weft.model.attachment import AttachmentKey
from weft.model.bridge import Bridged
from weft.model.errors import Conflict

REMEMBERED = 256  # bridges that are gone, and may come back with their former gateway


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge has. `sequence` None: the pool names it, so that it is in no book."""

    interface: IPv4Interface
    pool: str
    sequence: int | None


class Gateways:
    """Gateways by bridge and by address."""

    def __init__(self, addresses: Addresses, attachments: Attachments) -> None:
        self._addresses = addresses
        self._attachments = attachments
        self._of: dict[AttachmentKey, Gateway] = {}
        self._owners: dict[IPv4Address, AttachmentKey] = {}
        self._former: dict[AttachmentKey, IPv4Address] = {}

    def of(self, network: str, bridge: str) -> Gateway | None:
        """The gateway that a bridge has, or None."""
        return self._of.get(_owner(network, bridge))

    def reserved(self, network: str, bridge: str, wish: Wish) -> Wish | NeedBlock:
        """The wish of a container on a bridge that has its gateway now: its IPv4 address has to be
        of the same pool. A block that has to be claimed first. Raises Conflict."""
        if not wish.want4 or not self._addresses.serves(4, wish.pools):
            return wish
        owner = _owner(network, bridge)
        if (has := self._of.get(owner)) is None:
            found = self._addresses.gateway(wish, self._former.get(owner))
            if not isinstance(found, IPv4Address):
                return wish if found is None else found
            has = self._taken(owner, found)
        return msgspec.structs.replace(wish, pool4=has.pool)

    def _taken(self, owner: AttachmentKey, address: IPv4Address) -> Gateway:
        view = self._addresses.view
        pool = view.pool_at(address)
        if pool is None:
            raise Conflict(f"the IPPool of {address} has just gone; try again")
        return self._held(owner, IPv4Interface((address, pool.prefix.prefixlen)))

    def _held(self, owner: AttachmentKey, interface: IPv4Interface) -> Gateway:
        """Raises Conflict where somebody has the address."""
        view, address = self._addresses.view, interface.ip
        pool = view.pool_at(address)
        name = "" if pool is None else pool.name
        other = self._owners.get(address, owner)
        if other != owner:
            raise Conflict(
                f"pools: {interface} is the gateway on the bridge {other.ifname} of the network "
                f"{other.network} already; give each network a pool of its own, or one that names "
                "no gateway"
            )
        use = view.ledgers[4].used.get(int(address))
        if use is not None and use.key != owner:
            raise Conflict(f"{address}, the gateway of the IPPool {name}, is in use by {use.key}")
        sequence = None
        if pool is None or pool.excluded_until(int(address)) is None:
            view.adopt(address, owner)
            sequence = view.ledgers[4].used[int(address)].sequence
        self._of[owner] = Gateway(interface=interface, pool=name, sequence=sequence)
        self._owners[address] = owner
        return self._of[owner]

    def adopt(self, network: str, bridged: Bridged) -> None:
        """That of a bridge which containers are on since before this start. Raises Conflict where
        somebody else has its address."""
        found = ip_interface(bridged.gateway) if bridged.gateway else None
        if isinstance(found, IPv4Interface):
            self._held(_owner(network, bridged.bridge), found)

    def again(self, network: str, bridge: str) -> Gateway | None:
        """That of a bridge which another ADD's failure freed meanwhile; None: it had none. Raises
        Conflict where somebody else was given it."""
        owner = _owner(network, bridge)
        former = self._former.get(owner)
        return None if former is None else self._taken(owner, former)

    def sweep(self) -> None:
        """Give back what is of bridges that nobody is on. O(bridges)."""
        for owner in [each for each in self._of if not self._attachments.is_used(each.ifname)]:
            has = self._of.pop(owner)
            address = has.interface.ip
            del self._owners[address]
            self._former.pop(owner, None)
            self._former[owner] = address
            if len(self._former) > REMEMBERED:
                del self._former[next(iter(self._former))]
            if has.sequence is not None:
                self._addresses.give_back(address, has.sequence)

    def booked(self) -> dict[AttachmentKey, list[Address]]:
        """What is in the book of addresses, by its holder there."""
        return {
            owner: [has.interface.ip] for owner, has in self._of.items() if has.sequence is not None
        }


def _owner(network: str, bridge: str) -> AttachmentKey:
    return AttachmentKey(network, "", bridge)
