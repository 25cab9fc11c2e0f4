"""CHECK: every difference between what ADD promised and what the kernel holds.

The rows are computed again from the journal and compared with a read-back, on the host and inside
the container; the runtime's `prevResult` is compared with the promise. All differences are named,
one sentence each.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from msgspec.structs import replace

from weft.agent.ground import Ground
from weft.agent.promise import rows_of
from weft.drivers.contract import Difference
from weft.fabric.wiring import packed
from weft.kernel import namespaces, routes, rtnetlink
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.errors import Invalid, NotFound, WeftError
from weft.rows.base import Place
from weft.rows.links import Veth
from weft.wire.cni import Request, Result


class Checker:
    """Performs CHECK."""

    def __init__(self, ground: Ground, *, repair_pods: bool) -> None:
        self._engine = ground.engine
        self._attachments = ground.attachments
        self._node = ground.node
        self._egress = ground.egress
        self._log = ground.log
        self._repair_pods = repair_pods

    def check(self, request: Request, netns: int | None, key: AttachmentKey) -> None:
        """Raise WeftError (`check-failed`) whose details name every difference."""
        attachment = self._attachments.get(key)
        if attachment is None or attachment.state != "ready":
            raise NotFound(
                f"no attachment {key} is known; ADD it again", reason="unknown-container"
            )
        if netns is None or not namespaces.is_network_namespace(netns):
            raise Invalid(
                f"CNI_NETNS={request.netns or ''} is not a network namespace that can be opened",
                field="CNI_NETNS",
                reason="invalid-netns",
            )
        words = self._namespace_words(attachment, netns)
        if attachment.former is not None:
            words = words or _imported_words(attachment, netns)
        else:
            words = words or self._kernel_words(attachment, netns, _later_mtu(attachment, request))
        words += _result_words(attachment, request)
        if words:
            raise WeftError(
                f"{len(words)} differences between the promise for {key} and the kernel",
                reason="check-failed",
                details="; ".join(words),
            )

    def _kernel_words(
        self, attachment: Attachment, netns: int, may_be: Callable[[int], bool]
    ) -> list[str]:
        owner = str(attachment.key)
        wanted = rows_of(attachment, self._node) + self._egress.rows(attachment.egress)
        found = [
            each
            for each in self._engine.differences(wanted, netns)
            if not _has_other_mtu(each, may_be)
        ]
        inside = [each for each in found if getattr(each.row, "place", Place.HOST) is Place.POD]
        if inside:
            said = "; ".join(each.words for each in inside)
            self._log.event("warning", "PodDamaged", owner, said)
            if self._repair_pods:
                self._engine.remake(owner, [each.row.key for each in inside], netns)
                self._log.event("info", "PodRepaired", owner, said)
                found = [each for each in found if each not in inside]
        return [each.words for each in found]

    def _namespace_words(self, attachment: Attachment, netns: int) -> list[str]:
        known = attachment.netns
        dev, ino = namespaces.identity(netns)
        if known is None or (known.dev, known.ino) == (dev, ino):
            return []
        return [f"CNI_NETNS is network namespace {ino}, but the attachment was made in {known.ino}"]


def _imported_words(attachment: Attachment, netns: int) -> list[str]:
    """What an imported attachment lacks; how it is wired is its own plugins' to know."""
    with namespaces.entered(netns):
        via = rtnetlink.open_socket()
    with via:
        found = {
            address.ip
            for family in (routes.AF_INET, routes.AF_INET6)
            for _, body in via.dump(routes.get_addresses(family))
            if (address := routes.decode_address(body)) is not None
        }
    return [
        f"address {each.address} is missing"
        for each in attachment.addresses
        if packed(each.address) not in found
    ]


def _later_mtu(attachment: Attachment, request: Request) -> Callable[[int], bool]:
    """Which MTUs the container's end may have: a later plugin of the chain may have changed it
    (SPEC section 2, CHECK). Results say so from 1.1.0 on; before, any smaller one counts."""
    result = request.prev_result
    number = result.number_of(attachment.key.ifname) if isinstance(result, Result) else None
    if not isinstance(result, Result) or number is None:
        return lambda mtu: False
    told = result.interfaces[number].mtu
    return lambda mtu: mtu == told if told is not None else mtu < attachment.mtu


def _has_other_mtu(each: Difference, may_be: Callable[[int], bool]) -> bool:
    """Whether nothing differs but the MTU of the container's end, which may be so."""
    row, found = each.row, each.found
    if not (isinstance(row, Veth) and isinstance(found, Veth) and row.peer and found.peer):
        return False
    same = replace(found, peer=replace(found.peer, mtu=row.peer.mtu)) == row
    return same and may_be(found.peer.mtu)


def _result_words(attachment: Attachment, request: Request) -> list[str]:
    """Differences between `prevResult` and the promise; later plugins may have added to it."""
    result = request.prev_result
    if not isinstance(result, Result):
        return []
    words: list[str] = []
    told = {ipaddress.ip_interface(ip.address).ip for ip in result.ips}
    for assigned in attachment.addresses:
        if ipaddress.ip_address(assigned.address) not in told:
            words.append(f"prevResult does not list the address {assigned.address} of ADD's result")
    names = {interface.name for interface in result.interfaces}
    # results before 0.3.0 have no interfaces at all
    if names and attachment.key.ifname not in names:
        words.append(f"prevResult does not list the interface {attachment.key.ifname}")
    return words
