"""Knowing again what was promised: from the journal, and from the kernel where it has gaps.

What stands comes first: a pod that has a link has its addresses, whatever a damaged, older or
absent journal says. So links of ours are read before the journal's word for anything that is gone:

    link, and a record that agrees   as recorded
    link, and a record of another    from the link's alias (an older copy of the journal)
    link, no record                  from the link's alias
    link up, record `intent`         all had been made before the agent ended, and its runtime may
                                     have been answered, the journal's last pages being lost: it
                                     stays until its DEL, a GC, or an ADD that repeats it
    no link                          undone or finished by `agent.recovery`

A link that another plugin made and weft adopted is known by its number, whatever its name is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Mapping

import msgspec

from weft.agent.ground import Ground
from weft.drivers.links import give_name
from weft.fabric.bandwidth import limits_of
from weft.fabric.wiring import packed
from weft.kernel import nsids
from weft.kernel.host import HostLink
from weft.model.attachment import (
    ADOPTED_GROUP,
    ALIAS_MARK,
    ALIAS_VERSION,
    Adopted,
    AliasRecord,
    Attachment,
    NamespaceId,
    is_still,
    limiter_of,
    mark_of,
    read_adoption,
    read_alias,
    read_limiter_alias,
)
from weft.model.bridge import Bridged, read_bridge_alias
from weft.model.egress import UNKNOWN
from weft.model.errors import Conflict, KernelRefused, Unsupported, WeftError
from weft.render.egress import digests_of
from weft.render.published import mappings_of
from weft.rows.bandwidth import Bucket
from weft.rows.rules import Element

SEARCH = 2.0  # seconds that may be spent on finding namespaces again
FEW = 20  # events of one kind; more are counted
_VERSION = re.compile(re.escape(ALIAS_MARK) + r"([0-9]{1,9}) ")


class Recognition:
    """Fills the table of attachments and the book of addresses when the agent starts."""

    def __init__(self, ground: Ground) -> None:
        self._engine = ground.engine
        self._journal = ground.journal
        self._addresses = ground.addresses
        self._attachments = ground.attachments
        self._bridging = ground.bridging
        self._node = ground.node
        self._publishing = ground.publishing
        self._standing_ports: list[Element] | None = None
        self._standing_buckets: Mapping[str, Bucket] | None = None
        self._standing_lists: Mapping[bytes, str] | None = None
        self._log = ground.log
        self._from_links = 0

    def inhabited(self) -> list[str]:
        """Addresses of pods that stand, from their links alone."""
        links = [link for link in self._node.links() if link.is_veth]
        records = (read_alias(link.alias) or read_adoption(link.alias) for link in links)
        return [text for record in records if record is not None for text in record.addresses]

    def call_back(self) -> None:
        """Links that somebody renamed while no agent was there get their names again, so that
        their pods are not taken for gone. Raises nothing: who cannot be renamed keeps its pod's
        addresses, and is named."""
        links = self._node.links()
        ours = (each for each in self._journal.attachments() if each.former is None)
        own = own_names(links, {each.host_link for each in ours})
        for link in links:
            name = own[link.index]
            if name == link.name:
                continue
            try:
                give_name(self._engine.host.links, link.index, name)
            except KernelRefused as error:
                words = f"it is called {link.name} and cannot be renamed: {error.message}"
                self._log.event("error", "LinkMisnamed", name, words)
            else:
                words = f"it was called {link.name}, and has its name again"
                self._log.event("warning", "Repaired", name, words)

    def refuse_newer(self) -> None:
        """Raise Unsupported where a link bears a record of a newer weft that the journal does not
        know: its addresses cannot be read, and would be given out twice."""
        known = {attachment.host_link for attachment in self._journal.attachments()}
        for link in self._node.links():
            found = _VERSION.match(link.alias) if link.is_veth else None
            if found and int(found[1]) > ALIAS_VERSION and link.name not in known:
                raise Unsupported(
                    f"link {link.name} bears a record of format {found[1]}, this weft reads up to "
                    f"{ALIAS_VERSION}; start the newer weft again, or run its `weft agent "
                    "--teardown` first",
                    reason="state-newer",
                )

    def remember(self) -> None:
        """Everything that was promised, into memory and, where it lacks there, into the journal."""
        if self._journal.fresh:
            self._log.event("info", "JournalNew", "journal", self._journal.fresh)
        now = time.monotonic()
        content = self._journal.read()
        ours = [each for each in content.attachments if each.former is None]
        links = self._node.links()
        self._follow(ours, links)
        records = {
            attachment.host_link: attachment for attachment in ours if attachment.adopted is None
        }
        own = own_names(links, frozenset(records))
        for link in links:
            name = own[link.index]
            if name in records or (link.is_veth and link.alias.startswith(ALIAS_MARK)):
                self._standing(link, name, records.pop(name, None))
        imported = (each for each in content.attachments if each.former is not None)
        for attachment in (*records.values(), *imported):
            self._adopt(attachment)
        self._journal.warmed(now - self._addresses.view.cooldown)
        for address, sequence, since in content.cooling:
            self._addresses.cool(address, sequence, min(since, now))
        if self._from_links > FEW:
            self._log.event(
                "info", "Recognised", "node", f"{self._from_links} attachments, from their links"
            )

    def _follow(self, recorded: Iterable[Attachment], links: Collection[HostLink]) -> None:
        """Attachments whose links other plugins made: the links keep whatever name they have by
        now, and one whose record the journal has not is known from its alias."""
        standing = {link.index: link for link in links if link.is_veth}
        bridges = {link.index: link.name for link in links if link.kind == "bridge"}
        known: set[int] = set()
        for attachment in recorded:
            if attachment.adopted is None:
                continue
            link = standing.get(attachment.adopted.index)
            if link is not None and not is_still(link, attachment.host_link, mark_of(attachment)):
                link = None  # another has its number by now
            known.update(() if link is None else (link.index,))
            bridge = bridges.get(attachment.adopted.master, attachment.adopted.bridge)
            followed = msgspec.structs.replace(
                attachment,
                host_link=attachment.host_link if link is None else link.name,
                adopted=msgspec.structs.replace(attachment.adopted, bridge=bridge),
            )
            if followed != attachment:
                was, now = attachment.host_link, followed.host_link
                if was == now:
                    was, now = attachment.adopted.bridge, bridge
                words = f"{was}, which weft adopted or guards a port of, is called {now} now"
                self._log.event("warning", "LinkRenamed", str(attachment.key), words)
                self._journal.put(followed)
            self._adopt(followed)
        for index, link in standing.items():
            record = read_adoption(link.alias)
            if record is not None and index not in known:
                self._from_link(link, record)
            elif link.group == ADOPTED_GROUP and index not in known:
                words = (
                    "weft adopted it, and nothing says any more for whom: its container is cut off "
                    "until it is attached anew"
                )
                self._log.event("error", "LinkUnreadable", link.name, words)

    def _standing(self, link: HostLink, name: str, recorded: Attachment | None) -> None:
        record = read_alias(link.alias) if link.is_veth else None
        if record is not None and record.key.host_link != name:
            record = None  # somebody else's, or a copy
        if recorded is None:
            if record is None:
                words = f"the alias {link.alias!a} is not understood"
                self._log.event("warning", "LinkUnreadable", link.name, words)
            else:
                self._from_link(link, record)
        elif record is not None and not _agree(recorded, record):
            words = "the journal has other addresses for it than its link; the link is believed"
            self._log.event("warning", "JournalOutdated", str(recorded.key), words)
            self._from_link(link, record)
        elif record is not None and recorded.state == "intent" and link.up:
            complete = msgspec.structs.replace(recorded, state="ready", heard=False)
            self._journal.put(complete)
            self._adopt(complete)
            words = "its ADD was cut short after all was made; it stays until its DEL or ADD"
            self._log.event("info", "AddUnheard", str(recorded.key), words)
        else:
            self._adopt(recorded)

    def _adopt(self, attachment: Attachment) -> None:
        try:
            self._addresses.adopt(attachment)
        except Conflict as error:
            self._log.event("error", "AddressTwice", str(attachment.key), error.message)
        self._publishing.ledger.adopt(attachment)
        self._attachments.put(attachment)

    def _from_link(self, link: HostLink, record: AliasRecord) -> None:
        addresses, conflicts = self._addresses.recognise(record.key, record.addresses)
        for words in conflicts:
            self._log.event("error", "AddressTwice", str(record.key), words)
        adopted = None
        if not link.alias.startswith(ALIAS_MARK):
            adopted = self._adopted(link)
        attachment = Attachment(
            key=record.key,
            state="ready",
            host_link=link.name if adopted else record.key.host_link,
            adopted=adopted,
            bridged=self._bridge_of(record) if record.bridged else None,
            mac=record.mac,
            mtu=link.mtu,
            addresses=addresses,
            pod=record.pod,
            masquerade=record.masquerade,
            via4=record.via4,
            via6=record.via6,
            hooked=record.hooked,
            ranges6=self._addresses.ranges6() if record.via4 else (),
            ports=mappings_of(self._published(), [packed(text) for text in record.addresses]),
            bandwidth=limits_of(record.key, link.name, link.mtu, self._limited()),
            egress=self._list_of(record),
        )
        self._journal.put(attachment)
        self._publishing.ledger.adopt(attachment)
        self._attachments.put(attachment)
        self._from_links += 1
        if self._from_links <= FEW:
            words = f"known again from link {link.name}"
            self._log.event("info", "Recognised", str(record.key), words)

    def _adopted(self, link: HostLink) -> Adopted:
        """How it is adopted; what it was before is not known, so it gets the usual back."""
        find = self._engine.host.links.find_index
        found = find(link.index)
        bridge = find(found.master) if found is not None and found.master else None
        if bridge is None:
            return Adopted(index=link.index)
        return Adopted(index=link.index, bridge=bridge.name, master=bridge.ifindex)

    def _list_of(self, record: AliasRecord) -> str:
        """The digest of its egress list, as the kernel leads to it; `agent.egress` looks for it."""
        if self._standing_lists is None:
            self._standing_lists = digests_of(self._node.listed())
        known = (self._standing_lists.get(packed(text)) for text in record.addresses)
        return next(filter(None, known), UNKNOWN.digest if record.listed else "")

    def _bridge_of(self, record: AliasRecord) -> Bridged:
        """The bridge of a network, from its own record; one that is gone is made again."""
        for link in self._node.links():
            said = read_bridge_alias(link.alias) if link.kind == "bridge" else None
            if said is not None and said.network == record.key.network:
                return said.bridged
        words = "its bridge is gone with the journal; it is made again, as the pool says"
        self._log.event("error", "BridgeLost", str(record.key), words)
        return self._bridging.recalled(record.key.network, record.addresses, self.inhabited())

    def _limited(self) -> Mapping[str, Bucket]:
        """The token buckets that stand, by link, read once."""
        if self._standing_buckets is None:
            self._standing_buckets = self._node.buckets()
        return self._standing_buckets

    def _published(self) -> list[Element]:
        """The elements that stand in the maps of ports, read once."""
        if self._standing_ports is None:
            self._standing_ports = self._node.published()
        return self._standing_ports

    async def locate(self) -> None:
        """Find the namespaces of attachments that are known from their links alone, so that CHECK
        can tell another container's. One that cannot be seen from here stays unknown."""
        ours = (a for a in self._attachments if a.former is None)
        lost = {a.host_link: a for a in ours if a.netns is None}
        numbers = {
            link.name: link.peer_nsid
            for link in (self._node.links() if lost else ())
            if link.name in lost and link.peer_nsid is not None
        }
        if not numbers:
            return
        try:
            found = await asyncio.to_thread(nsids.find, set(numbers.values()), seconds=SEARCH)
        except (OSError, WeftError) as error:
            self._log.event("warning", "NamespacesUnknown", "node", str(error))
            return
        self._located(
            (lost[name], found[number]) for name, number in numbers.items() if number in found
        )
        if missing := len(numbers) - sum(number in found for number in numbers.values()):
            words = f"the namespaces of {missing} attachments cannot be found from here"
            self._log.event("warning", "NamespacesUnknown", "node", words)

    def _located(self, pairs: Iterable[tuple[Attachment, nsids.Found]]) -> None:
        for attachment, found in pairs:
            dev, ino = found.identity
            whole = msgspec.structs.replace(
                attachment,
                netns=NamespaceId(dev=dev, ino=ino),
                sandbox=attachment.sandbox or found.path,
            )
            self._attachments.put(whole)
            self._journal.put(whole)


def own_names(links: Iterable[HostLink], known: Collection[str]) -> dict[int, str]:
    """What each link should be called, by its number: as our record on it says, where it has one.
    One whose name is `known` to the journal has a wrong record, not a wrong name; and where a link
    of the right name stands, another with its record is none of ours."""
    own: dict[int, str] = {}
    told = {link.index: _told_name(link) for link in links}
    right = {link.name for link in links if told[link.index] == link.name}
    for link in links:
        name = told[link.index]
        if name is None or link.name in known or name in right:
            own[link.index] = link.name
        else:
            own[link.index] = name
    return own


def _told_name(link: HostLink) -> str | None:
    """The name that our record on the link says it should have, or None."""
    if link.kind == "ifb":
        limited = read_limiter_alias(link.alias)
        return None if limited is None else limiter_of(limited)
    if link.kind == "bridge":
        bridge = read_bridge_alias(link.alias)
        return None if bridge is None else bridge.bridged.bridge
    record = read_alias(link.alias) if link.is_veth else None
    return None if record is None else record.key.host_link


def _agree(recorded: Attachment, record: AliasRecord) -> bool:
    """Whether the journal and the link's alias speak of the same holding."""
    addresses = {a.address for a in recorded.addresses}
    listed = bool(recorded.egress) == record.listed
    return recorded.key == record.key and addresses == set(record.addresses) and listed
