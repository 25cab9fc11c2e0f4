"""What the sockets hear that listen for changes by others."""

from __future__ import annotations

import os
import subprocess

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
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", where)
    ip("link", "set", name, "up")
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
    ours, foreign = pair("wfpod"), pair("up0")
    with listen(ROUTE, [LINKS], ignore=(), well=WELL) as socket:
        flap(ours)
        assert heard(socket) == set()
        flap(foreign)
        assert heard(socket) == {("up0", NEW)}


@on_a_node
def test_what_happens_to_the_node_s_end_is_heard() -> None:
    inside = pair("wfpod")
    with listen(ROUTE, [LINKS], ignore=(), well=WELL) as socket:
        ip("link", "set", "wfpod", "down")
        assert heard(socket) == {("wfpod", NEW)}
        with entered(inside):
            ip("link", "delete", "eth0")
        assert heard(socket) == {("wfpod", DELETED)}
