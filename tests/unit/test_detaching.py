"""In which order a container's rows and link go."""

from __future__ import annotations

import asyncio
from unittest.mock import MagicMock

from weft.agent.detach import Detacher
from weft.fabric.wiring import packed
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.egress import EgressList
from weft.render import egress, guards

KEY = AttachmentKey(network="weft", container="pod", ifname="eth0")
LISTED = EgressList()
IP = packed("10.244.0.2")


def test_the_way_to_an_egress_list_goes_last() -> None:
    """A packet that passed the guards before they went would else meet no list."""
    order: list[str] = []
    rows = [
        *guards.elements(KEY.host_link, KEY.pod_mac, [IP], None, True),
        *egress.members([IP], LISTED.digest),
    ]

    def withdraw(_: str, keep: object = ()) -> list[str]:
        gone = [row for row in rows if row.key not in keep]  # type: ignore[operator]
        rows[:] = [row for row in rows if row not in gone]
        order.extend(sorted({row.set for row in gone}))
        return []

    async def delete(link: str, *_: object) -> None:
        order.append(link)

    ground, reaper, turns = MagicMock(), MagicMock(), MagicMock()
    ground.attachments.get.return_value = Attachment(
        key=KEY,
        state="ready",
        host_link=KEY.host_link,
        mac=KEY.pod_mac,
        mtu=1500,
        addresses=(),
        egress=LISTED.digest,
    )
    ground.bridging.last.return_value = None
    ground.engine.rows.side_effect = lambda _: tuple(rows)
    ground.engine.withdraw.side_effect = withdraw
    ground.engine.links.return_value = [KEY.host_link]
    reaper.delete.side_effect = delete
    detacher = Detacher(ground, reaper, turns, lambda _: None, MagicMock())

    asyncio.run(detacher.detach_held(KEY))

    assert order[-3:] == [KEY.host_link, "egress-node4", "egress4"]
    assert {"guard4", "local4"} <= set(order[:-3])
