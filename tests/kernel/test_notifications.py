"""What the sockets hear that listen for changes by others."""

from __future__ import annotations

import os
import subprocess

import pytest
from namespace_fixture import new_namespace, on_a_node

from weft.kernel.host import link_name
from weft.kernel.namespaces import entered
from weft.kernel.netlink import Socket, frames
from weft.kernel.notifications import Well, listen

ROUTE, LINKS = 0, 1
OURS = "wf" + "a" * 13
WELL = Well(
    prefix=b"wf", length=15, group=7, mac=bytes.fromhex("0a7765667400"), mtu=1500, mark=b"weft:"
)
NEW, DELETED = 16, 17


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def pair(name: str) -> int:
    """A veth pair whose other end, `eth0`, is in a namespace of its own."""
    inside = new_namespace()
    where = f"/proc/{os.getpid()}/fd/{inside}"
    own = ("address", "0a:77:65:66:74:00", "group", "7")
    ip("link", "add", name, *own, "type", "veth", "peer", "name", "eth0", "netns", where)
    ip("link", "set", name, "up", "alias", "weft:1 mine")
    return inside


def flap(inside: int) -> None:
    with entered(inside):
        ip("link", "set", "eth0", "up")
        ip("link", "set", "eth0", "down")


def heard(socket: Socket) -> set[tuple[str, int]]:
    found = set()
    while True:
        try:
            datagram = socket.receive()
        except BlockingIOError:
            return found
        found |= {(link_name(body).decode(), kind) for kind, _, _, body in frames(datagram)}


@on_a_node
def test_a_container_that_sets_its_end_up_and_down_is_not_heard() -> None:
    ours, foreign = pair(OURS), pair("up0")
    with listen(ROUTE, [LINKS], ignore=(), well=WELL) as socket:
        flap(ours)
        assert heard(socket) == set()
        flap(foreign)
        assert heard(socket) == {("up0", NEW)}


@on_a_node
def test_what_happens_to_the_node_s_end_is_heard() -> None:
    inside = pair(OURS)
    with listen(ROUTE, [LINKS], ignore=(), well=WELL) as socket:
        ip("link", "set", OURS, "down")
        assert heard(socket) == {(OURS, NEW)}
        with entered(inside):
            ip("link", "delete", "eth0")
        assert heard(socket) == {(OURS, DELETED)}


@pytest.mark.parametrize(
    "change",
    ["mtu 1300", "alias mine", "group 0", "address 02:00:00:00:00:01", "master br0", "name wfnew"],
)
@on_a_node
def test_what_is_changed_on_a_link_of_ours_is_heard(change: str) -> None:
    """The kernel says so in its own name, as it does of a carrier that comes and goes."""
    ip("link", "add", "br0", "type", "bridge")
    pair(OURS)
    with listen(ROUTE, [LINKS], ignore=(), well=WELL) as socket:
        ip("link", "set", OURS, *change.split())
        assert any(kind == NEW for name, kind in heard(socket) if name.startswith("wf"))
