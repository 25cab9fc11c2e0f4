"""A deleted table comes back with everybody's guards, and the agent's loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import pytest
from guarded_node import rows_of
from namespace_fixture import on_a_node

from weft.agent.events import Log
from weft.agent.mending import Doubt, Mender
from weft.agent.node import OWNER
from weft.agent.pace import LIMIT
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.kernel.nftables import tables
from weft.model.attachment import Assigned, Attachment, AttachmentKey
from weft.render.ruleset import NodeRules, node_rows
from weft.rows.rules import Table

PLAN = NodeRules(
    pools=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/48")),
    blocks=(ip_network("10.244.0.0/16"), ip_network("fd00:1::/64")),
)
SLACK = 3  # processor time of a thread, which a busy machine hardly changes


def promise(number: int) -> Attachment:
    key = AttachmentKey("net", f"pod{number}", "eth0")
    return Attachment(
        key=key,
        state="ready",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=tuple(
            Assigned(address=address, pool="p", block="b", sequence=0)
            for address in (f"10.244.{number >> 8}.{number & 255}", f"fd00:1::{number + 1:x}")
        ),
        masquerade=True,
    )


def populated(pods: int) -> Engine:
    """An engine whose kernel has the rules of so many pods; links are not needed here."""
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    engine.adopt(OWNER, node_rows(PLAN))
    for attachment in map(promise, range(pods)):
        engine.adopt(str(attachment.key), rows_of(attachment))
    engine.take_over(())
    return engine


@pytest.mark.matrix(id="T17 loop", full=10_000, reduced=300)
def test_a_deleted_table_is_rebuilt_without_holding_the_loop(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rebuilt(count, monkeypatch)


@on_a_node
def _rebuilt(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = populated(count)
    held: list[float] = []
    run: Callable[..., Any] = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        held.append(time.thread_time() - begun)

    async def scenario() -> None:
        mender = Mender(engine, Log("error", "text"))
        with closing(RulesTransport()) as thief:
            for row in node_rows(PLAN):
                if isinstance(row, Table):
                    assert thief.tables.commit([tables.delete_table(row)]) == []
        monkeypatch.setattr(asyncio.Handle, "_run", timed)
        outcome = await mender.mend(Doubt(owners=(OWNER,), rules=True))
        assert len(outcome.damaged) == count + 1
        assert len(outcome.by_rules) >= count
        again = await mender.mend(Doubt(rules=True))
        assert again.damaged == frozenset()

    asyncio.run(scenario())
    assert len(held) > count / 100  # it was made in parts
    assert max(held) < SLACK * LIMIT, f"{max(held) * 1000:.1f} ms"
