"""Giving the node back: `weft agent --teardown`; and keeping it closed at boot: `--close-boot`.

Removes links with our alias, our tables, and every global sysctl that still has the value we
wrote; then the journal and the queue. The store stays, for who comes back. Run without an agent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from weft.agent import journal_file, sole
from weft.agent.asking import Order
from weft.agent.events import Log
from weft.agent.foreign import look, record_path
from weft.agent.forwarding import give_back
from weft.agent.given import given_path, refuse_newer, stored
from weft.agent.journal import Journal, remove_journal
from weft.agent.node import NETLINK_ROUTE, why_unprotected
from weft.agent.places import TIMEOUT, secure
from weft.agent.readers import close_door
from weft.cni.queue import clear
from weft.drivers.engine import Engine
from weft.drivers.removal import delete_links
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.engines import relay
from weft.fabric.wiring import adoption, packed, route_localnet
from weft.kernel import loopback_hook
from weft.kernel.files import check_directory
from weft.kernel.host import HostLink, Network, read_links
from weft.kernel.netlink import Socket
from weft.model.attachment import (
    ADOPTED_GROUP,
    ALIAS_MARK,
    Adopted,
    Attachment,
    AttachmentKey,
    is_still,
    mark_of,
    read_adoption,
)
from weft.model.errors import Conflict, NotFound, Unsupported, WeftError
from weft.model.ip_pool import IPPool, pool_prefix
from weft.model.kinds import from_bytes, prefix_of_kind
from weft.model.settings import PathSettings, Settings
from weft.render.published import mappings_of
from weft.render.ruleset import NodeRules, closed_rows, node_rows
from weft.render.sets import LOCALNET, TABLE
from weft.rows.bandwidth import Ifb
from weft.rows.base import Row
from weft.rows.links import Sysctl
from weft.rows.rules import Element, Table
from weft.store.sqlite import SqliteStore


def refuse_beside_agent(path: Path) -> None:
    """Raise Conflict if an agent answers on the socket, or runs in this network namespace."""
    with suppress(NotFound):  # then nobody listens there
        check_directory(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return sole.refuse_beside()
    raise Conflict(f"an agent is running (it listens on {path}); stop it first")


async def teardown(settings: Settings, boot_id: str) -> None:
    """Remove everything of ours from this namespace."""
    refuse_beside_agent(Path(settings.paths.socket))
    secure(settings, make=False)
    log = Log(settings.log.level, settings.log.format)
    journal_file.refuse_newer(Path(settings.paths.journal))
    refuse_newer(given_path(settings.paths.store))
    with Socket(NETLINK_ROUTE) as rtnetlink:
        links = read_links(rtnetlink)
        names = [
            link.name
            for link in links
            if link.kind in ("veth", "ifb", "bridge") and link.alias.startswith(ALIAS_MARK)
        ]
    # on this thread: nothing else runs, and a thread would have to wake the loop in the end
    refused = {name: error for name, error in delete_links(names).items() if error}
    journal_path = Path(settings.paths.journal)
    known = _journaled(journal_path, boot_id)
    stuck = _restore_sysctls(settings.paths, boot_id, log)
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    tables = [row for row in node_rows(NodeRules()) if isinstance(row, Table)]
    # before the rules: without guards nothing may lead to 127/8
    _leave_adopted(engine, links, known, rules.standing(TABLE))
    engine.adopt("tables", tables)
    engine.withdraw("tables")
    _leave_firewalls(settings.paths, log)
    loopback_hook.remove()
    relay.end_all(Path(settings.paths.socket).parent)
    if refused:
        raise WeftError(f"these links could not be deleted: {', '.join(refused)}; run it again")
    if stuck:
        raise WeftError(f"these sysctls could not be restored: {', '.join(stuck)}; run it again")
    given_path(settings.paths.store).unlink(missing_ok=True)
    remove_journal(journal_path)
    Path(settings.paths.socket).with_name(TIMEOUT).unlink(missing_ok=True)
    clear(Path(settings.paths.queue))
    close_door(Path(settings.paths.query_socket))
    log.line("info", "the node is given back", links=len(names))


async def close_boot(settings: Settings) -> None:
    """Load the rules that keep pod ranges from being forwarded; the agent replaces them."""
    refuse_beside_agent(Path(settings.paths.socket))
    secure(settings, make=False)
    pools = await _pools(settings.paths.store)
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    # a table that stands keeps its flags, which cannot be changed, and what it guards
    before = [row for row in rules.standing(TABLE) if isinstance(row, Table)]
    persist = before[0].persist if before else not why_unprotected(settings, rules)
    engine.apply("boot", closed_rows(pools, persist=persist))


def _journaled(path: Path, boot_id: str) -> list[Attachment]:
    """The attachments of the journal whose links other plugins made, as far as it can be read."""
    if not path.exists():
        return []
    try:
        journal = Journal(path, boot_id)
    except Unsupported:
        raise
    except WeftError:  # the links' own marks have to do
        return []
    try:
        return [each for each in journal.attachments() if each.adopted is not None]
    finally:
        journal.close()


def _leave_adopted(
    engine: Engine,
    links: Sequence[HostLink],
    known: Iterable[Attachment],
    standing: Sequence[Row],
) -> None:
    """Adopted links are their makers' again: mark, limits and sysctl are taken back, also of a
    bridge whose port has gone. `standing`: our rules, which tell what no journal does."""
    named = {link.index: link.name for link in links}
    veths = {link.index: link for link in links if link.is_veth}
    bridges = set()
    for each in known:
        if each.adopted is None:
            continue
        bridge = named.get(each.adopted.master, "")
        bridges.add(bridge)
        link = veths.get(each.adopted.index)
        if link is not None and is_still(link, each.host_link, mark_of(each)):
            del veths[link.index]
            _withdraw_adopted(engine, each, link, bridge)
        elif bridge:
            gone = adoption(each, msgspec.structs.replace(each.adopted, bridge=bridge))
            engine.adopt(bridge, (row for row in gone if isinstance(row, Sysctl)))
            engine.withdraw(bridge)
    for link in veths.values():
        if link.group == ADOPTED_GROUP:
            found = engine.host.links.find_index(link.index)
            bridge = named.get(found.master, "") if found is not None else ""
            bridges.add(bridge)
            _withdraw_adopted(engine, _unrecorded(link, standing), link, bridge)
    for row in standing:
        if isinstance(row, Element) and row.set == LOCALNET:
            name = row.parts[0].rstrip(b"\0").decode(errors="replace")
            if name in named.values() and name not in bridges:
                engine.adopt(name, (msgspec.structs.replace(route_localnet(name), after="0"),))
                engine.withdraw(name)


def _withdraw_adopted(engine: Engine, attachment: Attachment, link: HostLink, bridge: str) -> None:
    renamed = msgspec.structs.replace(attachment, host_link=link.name)
    adopted = attachment.adopted or Adopted(index=link.index)
    rows = adoption(renamed, msgspec.structs.replace(adopted, bridge=bridge))
    engine.adopt(link.name, (row for row in rows if not isinstance(row, Ifb)))
    engine.learn(link.name, link.index)
    engine.withdraw(link.name)


def _unrecorded(link: HostLink, standing: Sequence[Row]) -> Attachment:
    """What an adopted link and our rules say of an attachment that no journal has."""
    record = read_adoption(link.alias)
    ips = [packed(text) for text in record.addresses] if record is not None else []
    elements = [row for row in standing if isinstance(row, Element)]
    return Attachment(
        key=record.key if record is not None else AttachmentKey("", "", ""),
        state="ready",
        host_link=link.name,
        mac=b"",
        mtu=link.mtu,
        addresses=(),
        ports=mappings_of(elements, ips),
        adopted=Adopted(index=link.index, signed=record is not None),
    )


def _leave_firewalls(paths: PathSettings, log: Log) -> None:
    """Take back what other firewalls were asked for."""
    seen = look(Order(admit=False, record=record_path(paths)))
    for owner, words in seen.taken_back:
        log.line("info", "taken back", firewall=owner, words=words)
    for trouble in seen.troubles:
        log.line("warning", trouble)


def _restore_sysctls(paths: PathSettings, boot_id: str, log: Log) -> list[str]:
    """From the journal and from `given.json`, whichever can be read. Returns what could not be
    restored: both files are needed for another try.

    Raises WeftError where neither can be read now, although there may be something in them.
    """
    found: dict[str, tuple[str, str]] = {}
    kept = given_path(paths.store)
    unread = ""
    try:
        for path, before, wrote in stored(kept, boot_id):
            found[path] = before, wrote
    except OSError as error:
        unread = f"{kept}: {error.strerror}"
        log.line("warning", "cannot be read", file=unread)
    journal_path = Path(paths.journal)
    if journal_path.exists():
        try:
            journal = Journal(journal_path, boot_id)
        except Unsupported:
            raise
        except WeftError as error:  # a full disk does not keep the node from being given back
            log.line("warning", error.message)
            if unread:
                raise WeftError(
                    f"the sysctls before weft can be read neither from {unread}, nor from the "
                    f"journal: {error.message}; run it again"
                ) from error
        else:
            found |= {path: (before, wrote) for path, before, wrote in journal.remembered()}
            journal.close()
    return give_back([(path, before, wrote) for path, (before, wrote) in found.items()], log)


async def _pools(path: str) -> tuple[Network, ...]:
    if not os.path.exists(path):  # noqa: ASYNC240 - nothing else runs on this loop
        return ()
    store = SqliteStore(path)
    try:
        if store.salvaged:  # the agent, which starts later, would see a new store and no damage
            store.renew(store.salvaged)
        listing = await store.list(prefix_of_kind("IPPool"))
    finally:
        await store.close()
    pools = (from_bytes(item.value, item.revision) for item in listing.items)
    return tuple(pool_prefix(pool) for pool in pools if isinstance(pool, IPPool))
