"""Datagrams that connection tracking still sends where they went before a port changed hands.

A flow of UDP lives in connection tracking as long as somebody sends, and translation is decided
with its first packet: a client that goes on from one port would never find a container that came
later, or one that followed another. So after each change of a published UDP port the flows of that
port are looked at, in a worker, and those that lead elsewhere are removed: the next datagram is
decided anew. Only flows to the node's own addresses, or translated to the container that left; what
others send to that port of other hosts is not touched. Next: `kernel.conntrack`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from weft.agent.events import Log
from weft.fabric.wiring import packed
from weft.kernel import conntrack
from weft.kernel.conntrack import Flow, Wanted
from weft.kernel.host import own_addresses
from weft.kernel.netlink import Failure, Socket
from weft.model.attachment import Attachment
from weft.model.errors import WeftError
from weft.model.ports import PROTOCOLS, PortMapping

NETLINK_ROUTE = 0
UDP = PROTOCOLS["udp"]


class StaleFlows:
    """Removes them; one look at a time, for the loop's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def after(self, attachment: Attachment) -> None:
        """The ports of an attachment were published, or are so no longer."""
        datagrams = [mapping for mapping in attachment.ports if mapping.protocol == "udp"]
        if not datagrams:
            return
        pod = frozenset(packed(each.address) for each in attachment.addresses)
        serving = attachment.state != "leaving"
        task = asyncio.get_running_loop().create_task(
            self._look(str(attachment.key), datagrams, pod, serving)
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _look(
        self, about: str, ports: list[PortMapping], pod: frozenset[bytes], serving: bool
    ) -> None:
        try:
            count = await asyncio.to_thread(self._remove, ports, pod, serving)
        except (OSError, Failure, WeftError) as error:
            words = f"UDP flows of before may stay for minutes: {error}"
            self._log.event("warning", "FlowsNotRemoved", about, words)
            return
        if count:
            self._log.line("info", "stale UDP flows removed", attachment=about, count=count)

    def _remove(self, ports: Iterable[PortMapping], pod: frozenset[bytes], serving: bool) -> int:
        removed = 0
        with self._lock, Socket(conntrack.NETLINK_NETFILTER) as via:
            with Socket(NETLINK_ROUTE) as links:
                own = own_addresses(links)
            for mapping in ports:
                aimed = own if mapping.every else own & {packed(mapping.host_ip)}
                for version in mapping.families:
                    wanted = Wanted(version, protocol=UDP, target_port=mapping.host_port)
                    stale = [
                        flow
                        for flow in conntrack.read(via, wanted)
                        if _leads_elsewhere(flow, aimed, pod, serving)
                    ]
                    removed += conntrack.delete(via, stale)
        return removed

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.gather(*self._running, return_exceptions=True)


def end_flows(addresses: Iterable[bytes]) -> int:
    """Remove what connection tracking holds of containers with these addresses, whoever began it;
    how many. For a worker: milliseconds for each 100,000 entries. Raises Failure, KernelRefused."""
    with Socket(conntrack.NETLINK_NETFILTER) as via:
        found = [
            flow
            for ip in addresses
            for wanted in (
                Wanted(4 if len(ip) == 4 else 6, source=ip),
                Wanted(4 if len(ip) == 4 else 6, answering=ip),
            )
            for flow in conntrack.read(via, wanted)
            if ip in (flow.original.source, flow.reply.source)  # before Linux 5.8 all are told
        ]
        return conntrack.delete(via, found)


def _leads_elsewhere(
    flow: Flow, aimed: frozenset[bytes], pod: frozenset[bytes], serving: bool
) -> bool:
    """Whether the flow ends where the port no longer leads."""
    if flow.original.target not in aimed:
        return False
    return (flow.reply.source in pod) is not serving
