"""The attachments of this node, in memory: the journal's content, indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from weft.model.attachment import Attachment, AttachmentKey, NamespaceId, limiter_of

T = TypeVar("T")


class Attachments:
    """Attachments by key, by host link, by bridge and by the namespace they are in."""

    def __init__(self) -> None:
        self._by_key: dict[AttachmentKey, Attachment] = {}
        self._by_link: dict[str, AttachmentKey] = {}
        self._by_netns: dict[NamespaceId, set[AttachmentKey]] = {}
        self._imported: dict[str, set[AttachmentKey]] = {}  # by container
        self._by_bridge: dict[str, set[AttachmentKey]] = {}
        self._bridge_of: dict[str, str] = {}  # by network

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Attachment]:
        return iter(self._by_key.values())

    def copied(self) -> list[Attachment]:
        """All of them now, copied in one step: for other threads than the loop's."""
        return list(self._by_key.values())

    def get(self, key: AttachmentKey) -> Attachment | None:
        """The attachment of a key, or None."""
        return self._by_key.get(key)

    def of_link(self, link: str) -> Attachment | None:
        """The attachment of a host link's name, or of its ifb's; None: there is none."""
        key = self._by_link.get(link)
        return self._by_key.get(key) if key is not None else None

    def owner_of(self, link: str) -> str | None:
        """Under which name the engine knows the rows of the attachment that a host link, or an
        ifb, belongs to; None: nobody's."""
        key = self._by_link.get(link)
        return str(key) if key is not None else None

    def put(self, attachment: Attachment) -> None:
        """Add or replace."""
        before = self._by_key.get(attachment.key)
        if before is not None and before.host_link != attachment.host_link:
            self._by_link.pop(before.host_link, None)
        self._by_key[attachment.key] = attachment
        if attachment.former is not None:  # its link is not ours to look after
            self._imported.setdefault(attachment.key.container, set()).add(attachment.key)
        else:
            self._by_link[attachment.host_link] = attachment.key
        if attachment.bandwidth.egress_rate:
            self._by_link[limiter_of(attachment.key.host_link)] = attachment.key
        if attachment.netns is not None:
            self._by_netns.setdefault(attachment.netns, set()).add(attachment.key)
        if attachment.bridged is not None:
            self._by_bridge.setdefault(attachment.bridged.bridge, set()).add(attachment.key)
            self._bridge_of[attachment.key.network] = attachment.bridged.bridge

    def drop(self, key: AttachmentKey) -> None:
        """Forget; unknown keys are fine."""
        attachment = self._by_key.pop(key, None)
        if attachment is not None:
            if attachment.former is not None:
                _discard(self._imported, key.container, key)
            else:
                for link in (attachment.host_link, limiter_of(key.host_link)):
                    self._by_link.pop(link, None)
            if attachment.netns is not None:
                _discard(self._by_netns, attachment.netns, key)
            if attachment.bridged is not None:
                _discard(self._by_bridge, attachment.bridged.bridge, key)
                if not self.is_used(attachment.bridged.bridge):
                    self._bridge_of.pop(key.network, None)

    def imported(self) -> list[Attachment]:
        """Those that other plugins made."""
        return [self._by_key[key] for keys in self._imported.values() for key in keys]

    def imported_as(self, key: AttachmentKey) -> list[Attachment]:
        """What other plugins made for this container and interface, on a network of any name: the
        runtime that moved to us asks by the name that our network has."""
        return [
            self._by_key[each]
            for each in self._imported.get(key.container, ())
            if each.ifname in (key.ifname, "")
        ]

    def inside(self, netns: NamespaceId) -> list[Attachment]:
        """Attachments made in a namespace. The kernel uses inodes again: one that vanished with
        an earlier namespace of this number may be among them."""
        return [self._by_key[key] for key in self._by_netns.get(netns, ())]

    def is_used(self, bridge: str) -> bool:
        """Whether anybody is on a bridge of ours."""
        return bridge in self._by_bridge

    def count_on(self, bridge: str) -> int:
        """How many are on a bridge of ours."""
        return len(self._by_bridge.get(bridge, ()))

    def one_on(self, bridge: str) -> Attachment | None:
        """Somebody on a bridge of ours: all of them say the same of it. None: nobody is."""
        for key in self._by_bridge.get(bridge, ()):
            return self._by_key[key]
        return None

    def one_bridged(self, network: str) -> Attachment | None:
        """Somebody of a network who is on its bridge; None: nobody is."""
        bridge = self._bridge_of.get(network)
        return None if bridge is None else self.one_on(bridge)

    def bridges(self) -> list[Attachment]:
        """Somebody of each bridge of ours."""
        return [self._by_key[next(iter(keys))] for keys in self._by_bridge.values()]

    def finished(self, network: str) -> list[Attachment]:
        """Attachments of a network whose ADD has finished, also where a DEL has failed since."""
        return [a for a in self if a.key.network == network and a.state != "intent"]


def _discard(index: dict[T, set[AttachmentKey]], at: T, key: AttachmentKey) -> None:
    keys = index[at]
    keys.discard(key)
    if not keys:
        del index[at]
