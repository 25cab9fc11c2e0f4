"""`weft import`: containers of Debian's bridge, host-local and portmap move under weft, by the real
plugins, the real agent and the real launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_host_ports import published, reach

from acceptance import Host, ask, pool
from former import NETWORKS, REFERENCE, RESULTS, Before, before
from weft.cli.client import Client
from weft.lab import cluster
from weft.lab.nodes import CLEAN_PATH
from weft.wire.api import ListParams

POOLS = ("former-former-ipv4", "former-former-ipv6")


@pytest.fixture
def former(host: Host) -> Iterator[Before]:
    with before(host) as made:
        yield made
        for container in made.held:
            host.send(ask("DEL", container))
        there = host.weft("get", "ippools", "-o", "name")
        if pools := [name for name in POOLS if name in there]:
            host.weft("delete", "ippool", *pools)


def imported(host: Host, *arguments: str, good: bool = True) -> dict[str, Any]:
    said = host.weft("import", "-o", "json", *arguments, good=good)
    found: dict[str, Any] = json.loads(said)
    return found


def results(answer: dict[str, Any]) -> dict[str, str]:
    return {each["container"]: each["result"] for each in answer["containers"]}


def known(host: Host) -> dict[str, str]:
    """Container to state."""
    client = Client(str(host.node.path(cluster.AGENT_SOCKET)))
    found = client.call("list", ListParams(kind="Attachment")).items
    return {each["spec"]["container"]: each["status"]["state"] for each in found}


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_containers_talk_through_the_move_and_leave_nothing_with_their_del(
    host: Host, former: Before
) -> None:
    one = former.add("one", (8080, 80), args="K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web")
    two = former.add("two")
    rules = former.rules()
    planned = imported(host, "--dry-run")
    assert results(planned) == {"one": "imported", "two": "imported"}
    assert known(host) == {} and POOLS[0] not in host.weft("get", "ippools")
    done = imported(host)
    assert done["containers"] == planned["containers"]
    assert [each["pool"] for each in done["pools"]] == list(POOLS)
    assert results(imported(host)) == {"one": "known", "two": "known"}
    assert known(host) == {"one": "imported", "two": "imported"}
    assert "is used by former/one/eth0" in host.weft("ipam", "show", one[0])
    assert "no problems" in host.weft("ipam", "check")
    assert former.rules() == rules

    new = host.add("new").addresses
    goals = {"one": one, "two": two, "new": new}
    for origin, goal in (("new", "one"), ("one", "new"), ("one", "two")):
        for address in goals[goal]:
            found = reach(host.network(origin), address, 80, host.network(goal), 80)
            assert found.answered, (origin, address)
            if origin == "new":  # not translated: the range is one of pods
                assert found.source in new
    outside = host.wires.outside.network
    assert reach(outside, "198.51.100.11", 8080, host.network("one"), 80).answered
    taken = host.send(ask("ADD", "new", ifname="eth1", **published((8080, 80))))
    assert b"published for pod blue/web" in taken.stdout
    assert host.send(ask("DEL", "one")).status == 0
    assert known(host) == {"two": "imported", "new": "ready"}
    assert "one" not in former.rules() and "8080" not in former.rules()
    assert former.results() == ["former-two-eth0"]
    assert former.reserved() == sorted(two)
    assert not reach(outside, "198.51.100.11", 8080, host.network("one"), 80, patience=0.3).answered
    del former.held["one"]
    host.unmake(["one"])
    host.drop("new")
    former.delete("two")
    assert imported(host)["gone"] == ["former/two/eth0"]
    assert known(host) == {}


def test_a_lost_journal_is_imported_again_and_a_del_without_an_agent_is_finished(
    host: Host, former: Before
) -> None:
    former.add("one", (8080, 80))
    two = former.add("two")
    imported(host)
    host.end()
    host.shell("rm /run/weft/journal.db*")
    host.start()
    assert known(host) == {}
    assert results(imported(host)) == {"one": "imported", "two": "imported"}
    # a DEL that finds no agent is finished by the next
    host.end()
    assert host.send(ask("DEL", "one")).status == 0
    host.start()
    until(lambda: known(host) == {"two": "imported"})
    assert former.results() == ["former-two-eth0"] and former.reserved() == sorted(two)
    del former.held["one"]
    host.unmake(["one"])
    said = host.send(ask("GC", network="former", **{"cni.dev/valid-attachments": []}))
    assert said.status == 0 and known(host) == {} and former.results() == []


def test_a_del_that_is_killed_half_way_is_finished_and_what_stays_outlives_the_agent(
    host: Host, former: Before
) -> None:
    former.add("one", (8080, 80))
    two = former.add("two", (8081, 80))
    slow = host.node.path("/opt/cni/slow/portmap")
    slow.parent.mkdir(mode=0o755)
    slow.write_text(f"#!/bin/sh\ntouch /run/weft/called; sleep 0.4\nexec {REFERENCE}/portmap\n")
    slow.chmod(0o755)
    try:
        imported(host, "--bin-dir", "/opt/cni/slow")
        request = ask("DEL", "one")
        with host.node.popen(
            ["/opt/cni/bin/weft"], env=request.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as launcher:
            launcher.stdin.write(request.stdin)
            launcher.stdin.close()
            until(host.node.path("/run/weft/called").exists)
            host.end()
            host.start()
            assert launcher.wait(30) == 0
        until(lambda: known(host) == {"two": "imported"})
    finally:
        slow.unlink()
        slow.parent.rmdir()
        host.node.path("/run/weft/called").unlink(missing_ok=True)
    assert former.results() == ["former-two-eth0"] and former.reserved() == sorted(two)
    assert "8080" not in former.rules() and "8081" in former.rules()
    assert "NotUndone" not in host.log()
    host.make(["new"])
    assert "is used by former/two/eth0" in host.weft("ipam", "show", two[0])
    assert (
        b"published for container two"
        in host.send(ask("ADD", "new", **published((8081, 80)))).stdout
    )
    host.unmake(["new"])
    del former.held["one"]
    host.unmake(["one"])


def test_an_import_that_is_killed_half_way_is_made_again_and_nothing_is_known_twice(
    host: Host, former: Before
) -> None:
    place = host.node.path(f"{NETWORKS}/former")
    place.mkdir(parents=True)
    names = [f"c{number}" for number in range(200)]
    for number, name in enumerate(names):
        path = place / f"10.22.1.{1 + number}"
        path.write_text(f"{name}\r\neth0")
        path.chmod(0o600)
    argv = [sys.executable, "-m", "weft.main", "import"]
    environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with host.node.popen(argv, env=environment, **quiet) as command:
        until(lambda: bool(known(host)))
        host.end()
        assert command.wait(20) in (0, 1)
    host.start()
    half = known(host)
    assert half and set(half.values()) == {"imported"}
    done = results(imported(host))
    assert done == {name: "known" if name in half else "imported" for name in names}
    assert set(known(host)) == set(names)
    assert "200 addresses, 200 attachments, no problems" in host.weft("ipam", "check")
    for path in place.iterdir():
        path.unlink()
    assert len(imported(host)["gone"]) == len(names)


def test_what_cannot_be_read_is_named_and_costs_nobody_else(host: Host, former: Before) -> None:
    for name in ("one", "two", "three"):
        former.add(name)
    places = host.node.path(RESULTS), host.node.path(f"{NETWORKS}/former")
    (places[0] / "former-two-eth0").write_bytes(b"")  # as a power loss leaves it
    (places[0] / "former-three-eth0").unlink()
    (places[0] / "former-odd-eth0").write_bytes(b'{"kind": "cniCacheV9"}')
    (places[1] / "10.22.0.77").touch()
    done = imported(host, good=False)
    assert results(done) == {"one": "imported", "two": "imported", "three": "imported"}
    assert {each["path"].rpartition("/")[2] for each in done["damaged"]} == {
        "former-two-eth0",
        "former-odd-eth0",
        "10.22.0.77",
    }
    # host-local alone knows these, and gives their addresses back
    for name in ("two", "three"):
        assert host.send(ask("DEL", name)).status == 0
    assert [each for each in former.reserved() if each.startswith("fd")] == ["fd22::2"]
    assert known(host) == {"one": "imported"}


def test_an_address_that_somebody_has_is_refused_by_name_and_none_is_given_twice(
    host: Host, former: Before
) -> None:
    host.apply(pool("same", "10.22.0.0/24"))
    host.add("ours", cni_args="IP=10.22.0.9", pools=["same", "default-ipv6"])
    one = former.add("one")
    place = host.node.path(f"{NETWORKS}/former/10.22.0.9")
    place.write_text("rival\r\neth0")
    place.chmod(0o600)
    done = imported(host, good=False)
    assert results(done) == {"one": "imported", "rival": "refused"}
    why = {each["container"]: each["why"] for each in done["containers"]}
    assert why["rival"] == "10.22.0.9 is held by weft/ours/eth0"
    # the block is ours, and yet packets for the imported container pass
    host.add("new")
    wanted = {"cni_args": f"IP={one[0]}", "pools": ["same", "default-ipv6"]}
    taken = host.send(ask("ADD", "new", ifname="eth1", **wanted))
    assert b"in use by former/one/eth0" in taken.stdout
    assert reach(host.network("new"), one[0], 80, host.network("one"), 80).answered
    given = [host.add(f"p{n}", pools=["same", "default-ipv6"]).addresses[0] for n in range(3)]
    assert one[0] not in given and all(each.startswith("10.22.0.") for each in given)
    for name in ("ours", "new", "p0", "p1", "p2"):
        host.drop(name)
    assert host.send(ask("DEL", "one")).status == 0
    del former.held["one"]
    host.unmake(["one"])
    place.unlink()
    host.weft("delete", "ippool", "same", "--force")
