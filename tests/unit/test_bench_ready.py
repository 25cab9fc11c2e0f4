"""The floor's messages hold what weft's rows hold, and nothing has to be asked for."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from bench import ready

from weft.drivers.rules import Rules
from weft.drivers.table import link_drivers
from weft.kernel import links
from weft.kernel.netlink import NLM_F_ACK, frames
from weft.kernel.nftables.messages import BATCH_BEGIN, BATCH_END
from weft.model.attachment import AttachmentKey
from weft.render.ruleset import NodeRules, node_rows
from weft.rows.base import Place
from weft.rows.links import Sysctl
from weft.rows.rules import Element

KEY = AttachmentKey("net", "c1", "eth0")
DUAL = ("10.244.0.9", "fd00::9")


def drivers() -> Any:
    rules: Any = Rules(None)  # type: ignore[arg-type]  # a transport is only for unknown sets
    for row in node_rows(NodeRules()):
        if type(row) in rules.kinds:
            rules.position(row)
    return {kind: each for each in (*link_drivers(), rules) for kind in each.kinds}


def packed(addresses: tuple[str, ...] = DUAL) -> ready.Ready:
    return ready.pack(ready.attachment(KEY, addresses), drivers(), 5001)


def test_only_the_last_message_of_a_batch_is_acknowledged() -> None:
    made = packed()
    for batch in (bytes(made.create), made.pod, made.host):
        headers = [struct.unpack_from("=HI", batch, at + 6) for at in _starts(batch)]
        assert [bool(flags & NLM_F_ACK) for flags, _ in headers[:-1]] == [False] * (
            len(headers) - 1
        )
        assert headers[-1][0] & NLM_F_ACK
        assert headers[-1][1] == ready.LAST


def _starts(batch: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(batch):
        starts.append(at)
        at += (struct.unpack_from("=I", batch, at)[0] + 3) & ~3
    return starts


def test_elements_are_one_transaction_and_so_is_their_removal() -> None:
    made = packed()
    guards = sum(isinstance(row, Element) for row in ready.rows(ready.attachment(KEY, DUAL)))
    for transaction in (made.rules, made.take_back):
        kinds = [kind for kind, _, _, _ in frames(transaction)]
        assert kinds[0] == BATCH_BEGIN
        assert kinds[-1] == BATCH_END
        assert len(kinds) == guards + 2


def test_links_are_born_with_the_numbers_that_later_messages_use() -> None:
    made = packed()
    birth = next(body for kind, _, _, body in frames(bytes(made.create)))
    assert struct.unpack_from("=i", birth, 4)[0] == 5001
    name, index = made.host_link.encode(), struct.pack("=i", 5001)
    assert name in bytes(birth)
    ups = [bytes(body[4:8]) for kind, _, _, body in frames(made.host) if kind == links.RTM_SETLINK]
    assert ups == [index]
    pod_ups = [body for kind, _, _, body in frames(made.pod) if kind == links.RTM_SETLINK]
    assert {struct.unpack_from("=i", body, 4)[0] for body in pod_ups} == {1, ready.POD_INDEX}


@pytest.mark.parametrize("descriptor", [7, 4096])
def test_descriptor_of_the_namespace_is_put_in_last(descriptor: int) -> None:
    made = packed()
    first = bytes(made.into(descriptor))
    length = struct.unpack_from("=I", first)[0]
    assert struct.unpack_from("=i", first, length - 4)[0] == descriptor
    # an attribute of 8 octets, IFLA_NET_NS_FD, is where the number went
    assert struct.unpack_from("=HH", first, length - 8) == (8, 28)


@pytest.mark.parametrize("addresses", [DUAL, DUAL[:1]])
def test_every_sysctl_row_is_written_on_its_side(addresses: tuple[str, ...]) -> None:
    made = packed(addresses)
    rows = [r for r in ready.rows(ready.attachment(KEY, addresses)) if isinstance(r, Sysctl)]
    messages = {
        "net/ipv4/conf/eth0/accept_redirects": links.set_accept_redirects(2, 0),
        "net/ipv6/conf/eth0/addr_gen_mode": links.set_addr_gen_mode(2, 1),
    }
    for message in messages.values():
        assert message[16:] in made.pod  # behind the header, whose number differs
    for place, files in ((Place.HOST, made.files), (Place.POD, made.pod_files)):
        wanted = {r.path for r in rows if r.place is place} - messages.keys()
        assert {item.partition(b"\0")[0].decode() for item in files} == wanted
