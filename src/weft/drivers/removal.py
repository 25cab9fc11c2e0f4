"""Deleting host ends of veth pairs, for a worker thread.

The kernel acknowledges a deletion after a grace period (16 to 20 ms), although both names are gone
from look-up about a millisecond after it was sent; so the deletion is sent from a worker, and
whoever answers for it asks `gone`. A grace period is paid once a message: several links are put
into one group and deleted as that. Deleting group 0 would delete every link of the machine, and a
foreign link in our group would go along: the number is fixed, never 0, and before each deletion a
dump has to show that the group holds links of ours only; otherwise they go one by one.
Nothing is deleted that is not a veth with our mark (`drivers.links.is_ours`).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence

from weft.drivers.links import DOOMED_GROUP, FEW, is_ours
from weft.kernel import links, rtnetlink
from weft.kernel.netlink import Failure, Socket
from weft.model.attachment import ALIAS_MARK
from weft.model.errors import KernelRefused

_ABSENT = (errno.ENODEV, errno.ESRCH)
FOREIGN = errno.ENOTUNIQ
"""Our link is not there and another bears its name; no deletion is ever answered so by Linux."""


class Looking:
    """Asks whether links can be found by name, in the namespace in which it was made; never waits
    for a deletion under way."""

    def __init__(self) -> None:
        self._lookup = rtnetlink.Lookup()

    def gone(self, name: str) -> bool:
        """Whether there is no link of this name."""
        return not self._lookup.exists(name)

    def is_up(self, name: str) -> bool:
        """Whether there is a link of this name and it is up."""
        return self._lookup.is_up(name)

    def name_of(self, number: int) -> str | None:
        """What the link with this number is called now; None: it is gone."""
        return self._lookup.name_of(number)

    def close(self) -> None:
        """Give the socket back."""
        self._lookup.close()


def gone(name: str) -> bool:
    """As `Looking.gone`, once."""
    looking = Looking()
    try:
        return looking.gone(name)
    finally:
        looking.close()


def delete_links(names: Sequence[str], numbers: Mapping[str, int] | None = None) -> dict[str, int]:
    """Delete links of the calling thread's namespace; blocks until the kernel is done.

    `numbers` are the interface indexes that the doomed links had: one that vanished by itself (its
    container ended) and was made again under the same name before this worker's turn came has
    another number, and is left alone. Returns errno by name: 0 for what is gone, also when it was
    before; FOREIGN where another link bears the name; otherwise what the kernel answered.
    """
    known = numbers or {}
    with rtnetlink.open_socket() as via:
        standing = _find(via, names)
        result = {}
        mine = []
        for name in names:
            link = standing.get(name)
            if link is None:
                result[name] = 0
            elif is_ours(link) and known.get(name, link.ifindex) == link.ifindex:
                mine.append(link)
            else:
                result[name] = FOREIGN
        # without an alias a link cannot be told from a foreign one once it is in the group
        signed = [link for link in mine if link.alias.startswith(ALIAS_MARK)]
        single = [link for link in mine if not link.alias.startswith(ALIAS_MARK)]
        if len(signed) > 1:
            single += _delete_together(via, signed, result)
        else:
            single += signed
        for link in single:
            result[link.name] = _refusal(via, links.delete_by_index(link.ifindex))
        return result


def _find(via: Socket, names: Sequence[str]) -> dict[str, links.Link]:
    if len(names) > FEW:
        asked = frozenset(names)

        def take(_: int, body: memoryview) -> links.Link | None:
            link = links.decode(body)
            return link if link.name in asked else None

        with contextlib.suppress(KernelRefused):  # links come and go faster than they are read
            return {link.name: link for link in via.gather(links.get_all(), take)}
    found = (rtnetlink.find_link(via, name) for name in names)
    return {link.name: link for link in found if link is not None}


def _delete_together(
    via: Socket, doomed: Sequence[links.Link], result: dict[str, int]
) -> list[links.Link]:
    """Delete as one group; answers the links that have to be deleted one by one."""
    _, failures = via.exchange([links.set_group(link.ifindex, DOOMED_GROUP) for link in doomed])
    refused = {doomed[failure.index].name: failure.errno for failure in failures}
    try:
        group = via.gather(links.get_all(), _of_group)
    except KernelRefused:  # no whole picture of who is in the group
        return list(doomed)
    if any(not _is_signed(link) for link in group):
        return list(doomed)
    code = _refusal(via, links.delete_group(DOOMED_GROUP)) if group else 0
    rest = []
    for link in doomed:
        if link.name in refused and refused[link.name] not in _ABSENT:
            rest.append(link)
        else:
            result[link.name] = code
    return rest


def _of_group(_: int, body: memoryview) -> links.Link | None:
    link = links.decode(body)
    return link if link.group == DOOMED_GROUP else None


def _is_signed(link: links.Link) -> bool:
    return is_ours(link) and link.alias.startswith(ALIAS_MARK)


def _refusal(via: Socket, message: bytes) -> int:
    try:
        via.transact([message])
    except Failure as failure:
        return 0 if failure.errno in _ABSENT else failure.errno
    return 0
