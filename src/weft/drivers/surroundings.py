"""Where rows live: the node's transports, a pod's for the time of one call, and names of links.

A link is named in rows and numbered in messages. Numbers are learnt when a link is made and kept
for the node's own links; before a read-back they are asked for anew, because somebody may have
made a link of the same name again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from weft.drivers.contract import Medium, Transport
from weft.drivers.transports import FileTransport, LinkTransport, PodTransports
from weft.kernel import links, rtnetlink
from weft.model.errors import KernelRefused
from weft.rows.base import Place

LOOPBACK = 1
"""The number of the loopback link in every namespace (include/net/net_namespace.h)."""


class Host:
    """The node's own transports. Made in the node's namespace; used by one thread at a time: a
    worker that reads makes a Host of its own."""

    def __init__(self, rules: Transport | None = None) -> None:
        self.links = LinkTransport(rtnetlink.open_socket())
        self.files = FileTransport()
        self.rules = rules

    def close(self) -> None:
        """Give back all but `rules`, which belongs to whoever made it."""
        self.links.close()
        self.files.close()


class Indexes:
    """Names and numbers of the links of one namespace. The loopback link is always number 1."""

    __slots__ = ("_names", "numbers")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"lo": LOOPBACK}
        self._names: dict[int, str] = {LOOPBACK: "lo"}

    def name(self, number: int) -> str | None:
        """What is remembered of a number."""
        return self._names.get(number)

    def owned(self, number: int) -> str | None:
        """The same, but not of the loopback link, which is nobody's."""
        return self.name(number) if number != LOOPBACK else None

    def of(self, links: Iterable[str]) -> Indexes:
        """What is remembered of these alone: by its number a bridge is ours, whoever bears its name
        by now."""
        known = Indexes()
        for link in links:
            if link in self.numbers:
                known.learn(link, self.numbers[link])
        return known

    def by_number(self) -> dict[int, str]:
        """All that is remembered, but the loopback link."""
        return {number: name for number, name in self._names.items() if number != LOOPBACK}

    def learn(self, link: str, number: int) -> None:
        """Remember; a name made again under another number forgets the old one."""
        known = self.numbers.get(link)
        if known != number:
            self.forget(link)
            self.numbers[link] = number
            self._names[number] = link

    def forget(self, link: str) -> None:
        """The link is gone; another may have its number by now."""
        number = self.numbers.pop(link, None)
        if number is not None and self._names.get(number) == link:
            del self._names[number]


class Surroundings:
    """Names and transports for one call of the engine: the node, and at most one pod.

    `known` are the node's links that need not be asked for; a read-back passes fresh ones.
    """

    __slots__ = ("_host", "_known", "_pod", "_pod_known", "views")

    def __init__(self, host: Host, known: Indexes, pod_fd: int | None) -> None:
        self._host = host
        self._known = known
        self._pod = PodTransports(pod_fd) if pod_fd is not None else None
        self._pod_known = Indexes()
        self.views = (View(Place.HOST, self), View(Place.POD, self))

    def __enter__(self) -> Surroundings:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pod is not None:
            self._pod.close()

    @property
    def has_pod(self) -> bool:
        """A pod's namespace was given."""
        return self._pod is not None

    def pod(self) -> int:
        """See `contract.Names`."""
        return self._inside().fd

    def _inside(self) -> PodTransports:
        if self._pod is None:
            raise KernelRefused(
                errno.ENOENT, "enter the pod's network namespace", hint="none was given"
            )
        return self._pod

    def transport(self, medium: Medium) -> Any:
        """See `contract.Scope`; raises KernelRefused for a pod's where no pod was given."""
        match medium:
            case Medium.HOST_LINKS:
                return self._host.links
            case Medium.POD_LINKS:
                return self._inside().links
            case Medium.HOST_FILES:
                return self._host.files
            case Medium.POD_FILES:
                return self._inside()
            case Medium.RULES:
                if self._host.rules is None:
                    raise KernelRefused(errno.EOPNOTSUPP, "change packet rules")
                return self._host.rules

    def learn(self, place: Place, link: str, index: int) -> None:
        """See `contract.Names`."""
        (self._known if place is Place.HOST else self._pod_known).learn(link, index)

    def find(self, place: Place, link: str) -> int | None:
        """See `contract.Names`."""
        known = self._known if place is Place.HOST else self._pod_known
        number = known.numbers.get(link)
        if number is None:
            found = self._links(place).find(link)
            if found is not None:
                number = found.ifindex
                known.learn(link, number)
        return number

    def index(self, place: Place, link: str) -> int:
        """See `contract.Names`."""
        known = self._known if place is Place.HOST else self._pod_known
        number = known.numbers.get(link) or self.find(place, link)
        if number is None:
            raise KernelRefused(errno.ENODEV, "find the link", link)
        return number

    def name(self, place: Place, index: int) -> str | None:
        """See `contract.Names`."""
        known = self._known if place is Place.HOST else self._pod_known
        name = known.name(index)
        if name is None:
            found = self._links(place).find_index(index)
            if found is not None:
                name = found.name
                known.learn(name, index)
        return name

    def learn_all(self, place: Place) -> None:
        """Number all links of a namespace from one dump, before many rows are read."""
        known = self._known if place is Place.HOST else self._pod_known
        for _, body in self._links(place).dump(links.get_all()):
            link = links.decode(body)
            known.learn(link.name, link.ifindex)

    def _links(self, place: Place) -> LinkTransport:
        return self._host.links if place is Place.HOST else self._inside().links


class View:
    """One namespace of the surroundings: what `contract.Scope` asks for."""

    __slots__ = ("_all", "place")

    def __init__(self, place: Place, surroundings: Surroundings) -> None:
        self.place = place
        self._all = surroundings

    @property
    def names(self) -> Surroundings:
        """Names of links in both namespaces."""
        return self._all

    def transport(self, medium: Medium) -> Any:
        """See `contract.Scope`."""
        if medium in (Medium.POD_LINKS, Medium.POD_FILES) and not self._all.has_pod:
            return None
        return self._all.transport(medium)
