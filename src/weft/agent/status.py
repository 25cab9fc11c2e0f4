"""What the agent says of itself: the answers behind `weft status`, `weft ipam` and `weft doctor`.

Everything here reads; nothing decides. `Reporter` is what `agent.api` needs of the agent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from weft import __version__
from weft.agent.events import Log
from weft.agent.given import FORMAT as GIVEN_FORMAT
from weft.agent.given import given_path
from weft.agent.journal import FORMAT as JOURNAL_FORMAT
from weft.agent.measures import read_drops
from weft.agent.parting import is_gone
from weft.agent.ports import Ledger
from weft.agent.table import Attachments
from weft.ipam import audit, defaults
from weft.kernel.host import Network
from weft.model.addresses import Address, address_of
from weft.model.attachment import ALIAS_VERSION, Attachment, AttachmentKey, read_alias
from weft.model.errors import Conflict, Invalid, NotFound
from weft.model.ip_block import block_prefix
from weft.store.contract import Store
from weft.store.sqlite_file import FORMAT as STORE_FORMAT
from weft.wire.api import (
    API_FORMAT,
    AddressUse,
    BlockUse,
    Imported,
    ImportParams,
    IpamCheck,
    IpamProblem,
    IpamShow,
    Released,
)
from weft.wire.status import (
    LARGEST,
    Capability,
    Families,
    Family,
    Format,
    Mtu,
    PoolUse,
    Sessions,
    Status,
    Watch,
    WayOut,
    WaysOut,
    Why,
)

if TYPE_CHECKING:
    from weft.agent.service import Service


class Reporter:
    """The agent's answers about itself."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = time.time()

    @property
    def node(self) -> str:
        """This node's name."""
        return self._service.name

    @property
    def store(self) -> Store:
        """Where objects are kept."""
        return self._service.store

    @property
    def log(self) -> Log:
        """Lines, and the events that are remembered."""
        return self._service.log

    @property
    def ports(self) -> Ledger:
        """The ledger of published ports."""
        return self._service.publishing.ledger

    @property
    def attachments(self) -> Attachments:
        """What is attached here."""
        return self._service.attachments

    async def status(self) -> Status:
        """Everything that `weft status` shows."""
        service = self._service
        facts = service.node.facts
        reasons = self.reasons()
        return Status(
            version=__version__,
            node=self.node,
            boot_id=service.boot_id,
            kernel=os.uname().release,
            ready=not reasons,
            reasons=tuple(reasons),
            warnings=tuple(self._warnings()),
            started=self._started,
            families=Families(
                ipv4=Family(enabled=facts.ipv4.on, why=facts.ipv4.why),
                ipv6=Family(enabled=facts.ipv6.on, why=facts.ipv6.why),
            ),
            ways_out=WaysOut(
                ipv4=_way_out(facts.way_out4, facts.way_out4_why),
                ipv6=_way_out(facts.way_out6, self._why6()),
            ),
            mtu=Mtu(value=facts.mtu, source=facts.mtu_source),
            pools=self._pools(),
            attachments=dict(Counter(a.phase for a in service.attachments)),
            drops=await asyncio.to_thread(read_drops),
            sessions=tuple(
                Sessions(verb=verb, result=result, count=count)
                for (verb, result), count in sorted(service.verbs.counts.items())
            ),
            formats=self._formats(),
            capabilities=self._capabilities(
                await service.limiting.why(), await service.egress.why()
            ),
            metrics=service.health.listener,
            watchdog=Watch(
                limit=service.settings.watchdog.limit, supervisor=service.health.supervised
            ),
            firewalls=service.firewalls.entries,
            settings=service.settings_file,
            start=service.health.started,
        )

    def reasons(self) -> list[Why]:
        """What keeps ADD from being served; nothing when the node is ready."""
        why = self._service.node.not_ready()
        empty = self._service.addresses.exhausted()
        reasons = [Why(reason="not-ready", message=why)] if why else []
        reasons += [Why(reason="exhausted", message=empty)] if empty else []
        if lost := self._service.server.trouble:
            reasons.append(Why(reason="not-ready", message=lost))
        hindered = self._service.node.hindered()
        return reasons + ([Why(reason="journal-unwritable", message=hindered)] if hindered else [])

    def _why6(self) -> str:
        facts = self._service.node.facts
        if facts.way_out6 or not facts.ipv6.on:
            return facts.way_out6_why
        return f"{facts.way_out6_why}; pods get IPv6 addresses and routes of the cluster only"

    def _warnings(self) -> list[Why]:
        service = self._service
        overlaps = defaults.overlapping(
            list(service.addresses.pools.values()),
            [prefix for prefix, _ in service.node.facts.prefixes],
        )
        # ranges of the plugins before us overlap their own bridge, and we give nothing out of them
        former = service.addresses.idle_pools()
        overlaps = [pair for pair in overlaps if pair[0] not in former]
        found = [
            Why(reason="pool-overlap", message=f"pool {pool} overlaps {prefix} of this host")
            for pool, prefix in overlaps
        ]
        found += [
            Why(reason="pool-problem", message=line) for line in service.addresses.view.problems()
        ]
        if service.readers.trouble:
            found.append(Why(reason="invalid-settings", message=service.readers.trouble))
        found += [Why(reason=reason, message=words) for reason, words in service.keeping.warnings()]
        found += service.firewalls.warnings()
        found += [
            Why(reason="contested", message=f"somebody changes {words} again and again")
            for words in service.watcher.contested()
        ]
        if lost := service.egress.lost():
            words = f"{len(lost)} containers, the first {lost[0]}, may connect nowhere"
            found.append(Why(reason="egress-lost", message=words))
        found += [
            Why(
                reason="not-isolated",
                message=f"containers of the network {network} reach each other on the bridge "
                f"{bridge} past the rules and the published ports of this node (isolation: false)",
            )
            for network, bridge in service.bridging.open_ones()
        ]
        return found + service.health.warnings()

    def _formats(self) -> tuple[Format, ...]:
        paths = self._service.settings.paths
        return (
            Format(name="journal", format=JOURNAL_FORMAT, path=paths.journal),
            Format(name="store", format=STORE_FORMAT, path=paths.store),
            Format(name="given", format=GIVEN_FORMAT, path=str(given_path(paths.store))),
            Format(name="api", format=API_FORMAT, path=paths.socket),
            Format(name="alias", format=ALIAS_VERSION),
        )

    def _capabilities(self, unlimited: str, unlisted: str) -> tuple[Capability, ...]:
        loopback = self._service.publishing.loopback
        return (
            Capability(name="ipv6", present=self._service.node.facts.wiring.ipv6_kernel),
            Capability(
                name="protected ruleset",
                present=not self._service.node.unprotected,
                why=self._service.node.unprotected,
            ),
            Capability(
                name="bridge-family guards",
                present=not self._service.node.unbridged,
                why=self._service.node.unbridged,
            ),
            Capability(
                name="host ports by ::1",
                present=not loopback.why,
                why=loopback.why,
                way=loopback.way,
            ),
            Capability(name="bandwidth limits", present=not unlimited, why=unlimited),
            Capability(name="egress lists", present=not unlisted, why=unlisted),
        )

    # -- addresses ------------------------------------------------------------------------------

    def _pools(self) -> tuple[PoolUse, ...]:
        view = self._service.addresses.view
        return tuple(
            PoolUse(
                name=usage.pool,
                cidr=usage.cidr,
                size=min(usage.size, LARGEST),
                used=usage.used,
                cooling=usage.cooling,
                free=min(usage.free, LARGEST),
                blocks=usage.blocks,
                disabled=usage.disabled,
            )
            for usage in audit.usage(view, time.monotonic())
        )

    def ipam_show(self) -> IpamShow:
        """Use of addresses on this node, from memory."""
        addresses = self._service.addresses
        now = time.monotonic()
        uses: list[AddressUse] = []
        for version, ledger in addresses.view.ledgers.items():
            for number, use in ledger.used.items():
                uses.append(self._use(address_of(version, number), "used", str(use.key)))
            for number, released in ledger.released.items():
                if released.at + addresses.view.cooldown > now:
                    uses.append(self._use(address_of(version, number), "cooling", ""))
        for pool in addresses.pools.values():
            uses += [
                AddressUse(address=text, pool=pool.metadata.name, state="reserved", owner=owner)
                for text, owner in pool.spec.reservations.items()
            ]
        uses.sort(key=lambda use: (":" in use.address, ipaddress.ip_address(use.address).packed))
        return IpamShow(
            node=self.node, pools=self._pools(), blocks=self._blocks(uses), addresses=tuple(uses)
        )

    def _use(self, address: Address, state: str, owner: str) -> AddressUse:
        pool = self._service.addresses.view.pool_at(address)
        return AddressUse(
            address=str(address), pool=pool.name if pool else "", state=state, owner=owner
        )

    def _blocks(self, uses: list[AddressUse]) -> tuple[BlockUse, ...]:
        found = []
        for block in self._service.addresses.blocks.values():
            if block.spec.node != self.node:
                continue
            prefix: Network = block_prefix(block)
            states = Counter(u.state for u in uses if ipaddress.ip_address(u.address) in prefix)
            found.append(
                BlockUse(
                    cidr=block.spec.cidr,
                    pool=block.spec.pool,
                    used=states["used"],
                    cooling=states["cooling"],
                    free=min(LARGEST, prefix.num_addresses) - sum(states.values()),
                    sequence=block.spec.sequence,
                )
            )
        return tuple(sorted(found, key=lambda use: use.cidr))

    async def ipam_check(self) -> IpamCheck:
        """Allocations compared with the journal's attachments and the kernel's links."""
        service = self._service
        held: dict[AttachmentKey, list[Address]] = {
            a.key: [ipaddress.ip_address(x.address) for x in a.addresses]
            for a in service.attachments
        }
        booked = service.bridging.gateways.booked()
        # what other plugins gave may be of no pool of ours
        given = {a.key for a in service.attachments if a.adopted or a.former}
        findings = [
            each
            for each in audit.differences(service.addresses.view, held | booked)
            if each.kind != "outside" or not given.issuperset(each.keys)
        ]
        problems = [
            IpamProblem(
                what=finding.kind,
                address=str(finding.address),
                text=finding.detail,
                mend=f"weft ipam release {finding.address}" if finding.kind == "leaked" else "",
            )
            for finding in findings
        ]
        problems += self._compared_with_links()
        problems += await asyncio.to_thread(_dead, service.attachments.imported())
        return IpamCheck(
            addresses=sum(map(len, held.values())), attachments=len(held), problems=tuple(problems)
        )

    def _compared_with_links(self) -> Iterator[IpamProblem]:
        attachments = self._service.attachments
        links = self._service.node.links()
        records = {link.name: read_alias(link.alias) for link in links if link.is_veth}
        present = {link.name for link in links}
        # one that somebody has just renamed is there, and gets its name again
        present |= {record.key.host_link for record in records.values() if record is not None}
        numbers = {link.index for link in links}
        for each in attachments:
            there = each.adopted.index in numbers if each.adopted else each.host_link in present
            if each.former is None and not there:
                yield _vanished(each, "has no link any more; its namespace is gone without a DEL")
        for name, record in records.items():
            if record is not None and attachments.get(record.key) is None:
                yield IpamProblem(
                    what="orphan",
                    address=", ".join(record.addresses),
                    text=f"link {name} bears weft's record of {record.key}, which is not attached",
                    mend=f"ip link delete {name}",
                )

    async def take_in(self, params: ImportParams) -> Imported:
        """Know attachments of other plugins. Raises WeftError where the journal is unwritable."""
        return await self._service.importing.take_in(params)

    async def ipam_release(self, address: str, force: bool) -> Released:
        """Give an address back: that of a vanished attachment, or with `force` of a live one,
        which is then detached. Raises NotFound, Conflict or Invalid."""
        service = self._service
        try:
            wanted = ipaddress.ip_address(address)
        except ValueError as error:
            raise Invalid(f"{address!a} is not an address", field="address") from error
        view = service.addresses.view
        use = view.ledgers[wanted.version].used.get(int(wanted))
        if use is None:
            raise NotFound(f"{wanted} is not in use; `weft ipam show` lists what is")
        pool = view.pool_at(wanted)
        attachment = service.attachments.get(use.key)
        if use.key in service.bridging.gateways.booked():
            raise Conflict(
                f"{wanted} is the gateway on the bridge {use.key.ifname} of the network "
                f"{use.key.network}; it is given back with the network's last container",
                reason="address-taken",
            )
        if attachment is None:
            view.release(wanted, use.sequence, time.monotonic())
        elif service.detacher.vanished(attachment) or force:
            await service.detacher.detach(use.key)
        else:
            raise Conflict(
                f"{wanted} belongs to {use.key}, which is attached; stop the container, or "
                "`--force` to take its network away",
                reason="address-taken",
            )
        return Released(
            address=str(wanted),
            pool=pool.name if pool else "",
            owner=str(use.key),
            cooling=view.cooldown,
        )


def _vanished(attachment: Attachment, why: str) -> IpamProblem:
    addresses = attachment.addresses
    return IpamProblem(
        what="vanished",
        address=", ".join(each.address for each in addresses),
        text=f"{attachment.key} {why}",
        mend=f"weft ipam release {addresses[0].address}" if addresses else "",
    )


def _dead(imported: list[Attachment]) -> list[IpamProblem]:
    """On a worker: imported attachments whose namespaces are gone."""
    return [_vanished(e, "is gone without a DEL") for e in imported if is_gone(e)]


def _way_out(present: bool, why: str) -> WayOut:
    if present:
        return WayOut(present=True, link=why.rpartition(" ")[2], why=why)
    return WayOut(present=False, why=why)
