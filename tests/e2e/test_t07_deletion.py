"""T07: DEL however it comes, as often as it comes, succeeds and leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import count as counter

import pytest

from acceptance import Ask, Host, ask, host_link, problems
from weft.lab import truth
from weft.lab.nodes import CLEAN_PATH


def _abuse(host: Host, number: int) -> Iterator[Ask]:
    """Every way to delete an attachment wrongly, ending with nothing attached."""
    name = f"abused-{number}"
    yield ask("DEL", name)  # before ADD, and with a namespace that has not been yet
    yield ask("DEL", name, version="0.1.0")
    host.make([name])
    said = host.send(ask("ADD", name)).json
    yield ask("DEL", f"other-{number}", pod=name)  # another container's ID
    yield ask("DEL", name, ifname="eth7")
    yield ask("DEL", name, network="elsewhere")
    assert host_link(name) in host.pod_links, "a DEL of something else removed this attachment"
    if number % 2:
        host.unmake([name])  # the namespace goes first
    without = ask("DEL", name)
    del without.env["CNI_NETNS"]
    yield without
    assert host_link(name) not in host.pod_links
    for _ in range(5):
        yield ask("DEL", name, prevResult=said)
    empty = ask("DEL", name)
    empty.env["CNI_NETNS"] = ""
    yield empty
    missing = ask("DEL", name, prevResult={"cniVersion": "1.1.0", "ips": [{"address": "x"}]})
    yield missing
    for version in ("0.2.0", "0.3.1", "0.4.0", "1.0.0", None):
        yield ask("DEL", name, version=version)
    yield ask("DEL", name, cni_args="no=pair=at;all", ipam={"type": "other"}, mtu=-1)
    if not number % 2:
        host.unmake([name])


@pytest.mark.matrix(id="T07", full=500, reduced=60)
def test_every_deletion_succeeds_and_leaves_nothing(host: Host, count: int) -> None:
    witness = host.add("witness").json
    asked = 0
    for number in counter():
        for request in _abuse(host, number):
            said = host.send(request)
            asked += 1
            assert not problems([said]), request
            assert said.stdout == b""
        if asked >= count:
            break
    assert host.send(ask("CHECK", "witness", prevResult=witness)).status == 0
    host.drop("witness")


@pytest.mark.matrix(id="T07", full=200, reduced=40)
def test_deletions_of_one_attachment_at_once_all_succeed(host: Host, count: int) -> None:
    host.make(["same"])
    for _ in range(count // 10):
        assert host.send(ask("ADD", "same")).status == 0
        assert not problems(host.storm([ask("DEL", "same") for _ in range(10)], workers=10))
        assert host.pod_links == set()
    host.unmake(["same"])


def test_after_a_deletion_nothing_of_the_attachment_is_left_in_either_namespace(
    host: Host,
) -> None:
    added = host.add("gone")
    assert host.send(ask("DEL", "gone")).status == 0

    # at once, without waiting: DEL answers when this is so
    assert host_link("gone") not in host.pod_links
    assert host.shell("ip netns exec gone ip -o link").count("\n") == 1
    rules = host.guarded()
    for address in added.addresses:
        assert address not in rules
        family = 6 if ":" in address else 4
        assert not host.shell(f"ip -{family} route show {address}").strip()
    assert host.send(ask("ADD", "gone")).status == 0
    host.drop("gone")


RENAMING = "for link in /sys/class/net/wf*; do ip link set ${link##*/} name x${link##*/wf}; done"


@pytest.mark.matrix(id="T07 renamed", full=200, reduced=8)
def test_a_link_that_is_renamed_in_the_midst_of_its_deletion_goes(host: Host, count: int) -> None:
    """While the kernel renames a link it finds it under neither name."""
    names = [f"pod-{number}" for number in range(8)]
    host.make(names)
    for _ in range(0, count, len(names)):
        assert not problems(host.storm([ask("ADD", name) for name in names]))
        quoted = ["sh", "-c", f"{RENAMING} 2>/dev/null"]
        renaming = host.node.popen(quoted, env={"PATH": CLEAN_PATH}, stdin=subprocess.DEVNULL)
        try:
            assert not problems(host.storm([ask("DEL", name) for name in names]))
        finally:
            renaming.wait(timeout=30)
        assert set(truth.links(host.node.network)) == {"lo", "eth0"}
    host.unmake(names)
