"""What the plugins before us left on this node: libcni's cache and host-local's directories.

Reads only, as root, and believes nothing that others could have written. Containers of both are
told apart by (network, container, interface); what host-local alone knows has an address and
nothing else. A file that cannot be read costs its container, by name, and no other's. Bytes and
forms: `wire.cni.former`; what becomes of it: `agent.importing`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from weft.kernel import files, namespaces
from weft.model.addresses import Prefix, parse_prefix
from weft.model.attachment import AttachmentKey, PodRef
from weft.model.errors import Invalid, NotFound, WeftError
from weft.model.ports import PortMapping
from weft.wire.cni.former import (
    HOST_LOCAL,
    LARGEST,
    LOOPBACK,
    Cached,
    NetworkList,
    Reservation,
    read_cache,
    read_list,
    read_reservation,
)

ROOT = "/var/lib/cni"
RESULTS = f"{ROOT}/results"
NETWORKS = f"{ROOT}/networks"
CONFIGURATIONS = "/etc/cni/net.d"
PLUGINS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
_ENDS = (".conflist", ".conf", ".json")
_HEX = re.compile(r"(.+)-([0-9a-f]{64})-([^-]+)")
OURS = "weft"
"""The type under which configurations call us."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look. `only`: networks; empty: all."""

    results: str = RESULTS
    networks: tuple[str, ...] = ()
    configurations: tuple[str, ...] = (CONFIGURATIONS,)
    plugins: tuple[str, ...] = PLUGINS
    only: tuple[str, ...] = ()


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of one container, as others' plugins made it. `ifname` "": not on record;
    `netns` "": nor its namespace. `dead`: the namespace is on record, and gone. `written`: when,
    wall clock. `problem`: why it cannot be taken over as it is."""

    key: AttachmentKey
    addresses: tuple[str, ...]
    ports: tuple[PortMapping, ...] = ()
    netns: str = ""
    dead: bool = False
    link: str = ""
    mac: str = ""
    mtu: int = 0
    pod: PodRef = PodRef()
    version: str = ""
    routed: tuple[int, ...] = ()  # families of its default routes
    cache: str = ""
    reservations: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    written: float = 0.0
    problem: str = ""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A range out of which a network gave addresses."""

    network: str
    prefix: Prefix


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory that could not be read."""

    path: str
    why: str


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found. `ours`: caches of containers that we attached ourselves; `old`:
    containers of an earlier boot, which are dead."""

    containers: tuple[Container, ...] = ()
    ranges: tuple[Range, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    ours: int = 0
    old: tuple[Container, ...] = ()


class _Reading:
    """One look; collects."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.damaged: list[Damaged] = []
        self.ranges: dict[Range, None] = {}
        self.directories: dict[str, None] = dict.fromkeys(places.networks or (NETWORKS,))
        self.containers: dict[AttachmentKey, Container] = {}
        self.bare: list[tuple[str, Cached, float]] = []
        self.ours: set[AttachmentKey] = set()
        self.by_container: dict[tuple[str, str], list[AttachmentKey]] = {}

    def wanted(self, network: str) -> bool:
        return not self._places.only or network in self._places.only

    # -- libcni

    def configurations(self) -> None:
        """Ranges and data directories of networks that stand in a configuration, also in one that
        was set aside."""
        for directory in self._places.configurations:
            for name in _names(directory):
                if not any(end in name for end in _ENDS):
                    continue
                try:
                    found = read_list(files.read(Path(directory, name), LARGEST, linked=True))
                except WeftError:
                    continue  # what it says nobody could have used
                self._note(found)

    def _note(self, network: NetworkList) -> None:
        for subnet, directory in network.ranges():
            if directory.startswith("/"):
                self.directories.setdefault(directory)
            if subnet and self.wanted(network.name):
                try:
                    prefix = parse_prefix(subnet, "subnet")
                except Invalid:
                    continue
                self.ranges.setdefault(Range(network=network.name, prefix=prefix))

    def results(self) -> None:
        directory = self._places.results
        for name in _names(directory, self.damaged):
            path = f"{directory}/{name}"
            try:
                content = files.read(Path(path), LARGEST)
                cached = read_cache(content)
                written = os.stat(path).st_mtime
                if not cached.network:
                    self.bare.append((path, cached, written))
                elif cached.ifname != LOOPBACK and self.wanted(cached.network):
                    self._cached(path, cached, written)
            except NotFound:
                continue  # its container has just gone
            except (WeftError, OSError) as error:
                self.damaged.append(Damaged(path=path, why=_words(error)))

    def _cached(self, path: str, cached: Cached, written: float) -> None:
        key = AttachmentKey(cached.network, cached.container, cached.ifname)
        self.by_container.setdefault((key.network, key.container), []).append(key)
        if cached.list and any(each.type == OURS for each in cached.list.plugins):
            self.ours.add(key)
            return
        if cached.list:
            self._note(msgspec.structs.replace(cached.list, name=cached.network))
        self.containers[key] = self._container(key, path, cached, written)

    def _container(
        self, key: AttachmentKey, path: str, cached: Cached, written: float
    ) -> Container:
        problem = ""
        mappings: tuple[PortMapping, ...] = ()
        try:
            mappings = cached.mappings
        except Invalid as error:
            problem = f"its ports cannot be read: {error.message}"
        inside = next((i for i in cached.result.interfaces if i.name == key.ifname), None)
        outside = [i.name for i in cached.result.interfaces if not i.sandbox]
        link = next((name for name in outside if name.startswith("veth")), "")
        return Container(
            key=key,
            addresses=cached.addresses,
            ports=mappings,
            netns=cached.place,
            dead=bool(cached.place) and namespaces.locate(cached.place) is None,
            link=link,
            mac=inside.mac if inside else "",
            mtu=(inside.mtu if inside else None) or 0,
            pod=cached.pod,
            version=cached.version,
            routed=tuple(
                6 if ":" in route.dst else 4
                for route in cached.result.routes
                if route.dst in ("0.0.0.0/0", "::/0")
            ),
            cache=path,
            plugins=self._places.plugins,
            written=written,
            problem=problem,
        )

    # -- host-local

    def reservations(self) -> None:
        for directory in self.directories:
            for network in _names(directory, self.damaged):
                if self.wanted(network) and os.path.isdir(f"{directory}/{network}"):
                    self._network(f"{directory}/{network}", network)

    def _network(self, directory: str, network: str) -> None:
        for name in _names(directory, self.damaged):
            path = f"{directory}/{name}"
            if name[:1] not in "0123456789abcdefABCDEF:_":
                continue
            try:
                content = files.read(Path(path), 4096)
                found = read_reservation(name, content)
                if found is not None:
                    self._reserved(path, network, found, os.stat(path).st_mtime)
            except NotFound:
                continue
            except (WeftError, OSError) as error:
                self.damaged.append(Damaged(path=path, why=_words(error)))

    def _named(self, key: AttachmentKey) -> Sequence[AttachmentKey]:
        """Who may be meant by a reservation; an old one names no interface."""
        return (key,) if key.ifname else self.by_container.get((key.network, key.container), ())

    def _reserved(self, path: str, network: str, found: Reservation, written: float) -> None:
        address = str(found.address)
        key = AttachmentKey(network, found.container, found.ifname)
        meant = self._named(key)
        if any(each in self.ours for each in meant):
            return
        listed = (self.containers[each] for each in meant if each in self.containers)
        known = next((c for c in listed if key.ifname or address in c.addresses), None)
        if known is None:
            known = self.containers.get(key) or Container(
                key=key, addresses=(), plugins=self._places.plugins, written=written
            )
        addresses = known.addresses
        if address not in addresses:
            addresses = (*addresses, address)
        self.containers[known.key] = msgspec.structs.replace(
            known, addresses=addresses, reservations=(*known.reservations, path)
        )

    # -- both

    def name_bare(self) -> None:
        """Results that name nobody are those of who has their addresses, or of whom the file's
        name tells beyond doubt."""
        by_name = {f"{key.network}-{key.container}-{key.ifname}": key for key in self.containers}
        for path, cached, written in self.bare:
            name = path.rpartition("/")[2]
            match = _HEX.fullmatch(name)
            key = by_name.get(name) or (AttachmentKey(*match.groups()) if match else None)
            if key is None:
                why = "a bare result, as libcni wrote before 0.7, and nothing tells whose it is"
                self.damaged.append(Damaged(path=path, why=why))
            elif key.ifname != LOOPBACK and self.wanted(key.network):
                self._bare(key, path, cached, written)

    def _bare(self, key: AttachmentKey, path: str, cached: Cached, written: float) -> None:
        known = self.containers.get(key)
        made = self._container(key, path, cached, written)
        if known is not None:
            every = dict.fromkeys((*known.addresses, *made.addresses))
            made = msgspec.structs.replace(
                made, addresses=tuple(every), reservations=known.reservations
            )
        self.containers[key] = made

    def judged(self) -> tuple[list[Container], list[Container]]:
        """Containers of this boot, and those of an earlier one."""
        now: list[Container] = []
        old: list[Container] = []
        for each in self.containers.values():
            (old if each.dead and each.written < self._booted else now).append(each)
        return _contested(now), old


def _contested(containers: Iterable[Container]) -> list[Container]:
    """With a problem where two containers have one address on record: the one for which host-local
    reserves it has it, else one that lives."""
    listed = sorted(containers, key=lambda each: each.key)
    holders: dict[str, list[Container]] = {}
    for each in listed:
        for address in each.addresses:
            holders.setdefault(address, []).append(each)
    wrong: dict[AttachmentKey, str] = {}
    for address, several in holders.items():
        if len(several) < 2:
            continue
        ends = (f"/{address}", f"/{address.replace(':', '_')}")
        best = max(
            several,
            key=lambda each: (
                any(path.endswith(ends) for path in each.reservations),
                not each.dead,
            ),
        )
        for each in several:
            if each is not best:
                wrong[each.key] = f"{address} is on record for {best.key}, too"
    return [
        msgspec.structs.replace(each, problem=wrong[each.key]) if each.key in wrong else each
        for each in listed
    ]


def read(places: Places) -> Left:
    """Everything that is there. Raises nothing for what is damaged; 10,000 containers take some
    seconds."""
    reading = _Reading(places)
    reading.configurations()
    reading.results()
    reading.reservations()
    reading.name_bare()
    containers, old = reading.judged()
    return Left(
        containers=tuple(containers),
        ranges=tuple(reading.ranges),
        damaged=tuple(reading.damaged),
        ours=len(reading.ours),
        old=tuple(old),
    )


def count(places: Places) -> int:
    """About how many containers of others there are, without reading who they are: for those who
    only mention it."""
    cached = sum(
        not name.startswith(f"{OURS}-") and not name.endswith(f"-{LOOPBACK}")
        for name in _names(places.results)
    )
    reserved = sum(
        name[:1].isdigit()
        for network in _names(NETWORKS)
        for name in _names(f"{NETWORKS}/{network}")
    )
    return max(cached, reserved)


def cached_of(path: str, key: AttachmentKey) -> Cached | None:
    """libcni's file about an attachment; None where it is gone, another's, or damaged."""
    try:
        found = read_cache(files.read(Path(path), LARGEST))
    except (WeftError, OSError):
        return None
    if found.network and (found.network, found.container, found.ifname) != (
        key.network,
        key.container,
        key.ifname,
    ):
        return None
    return found


def _names(directory: str, damaged: list[Damaged] | None = None) -> Sequence[str]:
    """The names in a directory, sorted; none where there is no such directory, or one that others
    can write, which is then noted."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if damaged is not None:
            damaged.append(Damaged(path=directory, why=_words(error)))
        return []
    odd = [name for name in found if not _is_text(name)]
    if damaged is not None:
        why = "its name is no text"
        damaged += (Damaged(path=f"{directory}/{os.fsencode(name)!r}", why=why) for name in odd)
    return [name for name in found if name not in odd] if odd else found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(error: Exception) -> str:
    if isinstance(error, WeftError):
        return error.message
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


__all__ = [
    "HOST_LOCAL",
    "Container",
    "Damaged",
    "Left",
    "Places",
    "Range",
    "cached_of",
    "count",
    "read",
]
