"""T08: GC removes exactly what a runtime no longer knows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

import pytest

from acceptance import LAUNCHER, Ask, Host, ask, execute_all, host_link, keep, problems
from weft.lab import calls

VALID = "cni.dev/valid-attachments"
EARLIER = "cni.dev/attachments"  # the key's name in the first drafts


def _attach(host: Host, names: Sequence[str]) -> None:
    host.make(names)
    assert not problems(host.storm([ask("ADD", name) for name in names]))


def _detach(host: Host, names: Sequence[str]) -> None:
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    host.unmake(names)


@pytest.mark.matrix(id="T08", full=500, reduced=40)
def test_a_collection_removes_exactly_what_is_not_kept(host: Host, count: int) -> None:
    live = [f"live-{n}" for n in range(count)]
    leaked = [f"leaked-{n}" for n in range(count)]
    _attach(host, live + leaked)
    host.unmake(leaked[::2])  # half of them have lost their namespace, and their link with it

    said = host.send(ask("GC", **{VALID: keep(*((name, "eth0") for name in live))}))

    assert not problems([said])
    assert said.stdout == b""
    assert host.pod_links == {host_link(name) for name in live}
    assert host.used() == 2 * count
    assert not problems(host.storm([ask("ADD", name) for name in leaked[1::2]]))
    _detach(host, live)
    _detach(host, leaked[1::2])


def test_an_empty_list_removes_everything_of_this_network_and_nothing_of_another(
    host: Host,
) -> None:
    host.add("mine")
    host.add("theirs", network="other")

    assert host.send(ask("GC", **{VALID: []})).status == 0

    assert host.pod_links == {host_link("theirs", network="other")}
    host.drop("theirs", network="other")
    host.drop("mine")


def test_both_names_of_the_key_count_together_and_each_alone(host: Host) -> None:
    _attach(host, ["one", "two", "three"])

    both = {VALID: keep(("one", "eth0")), EARLIER: keep(("two", "eth0"))}
    assert host.send(ask("GC", **both)).status == 0
    assert host.pod_links == {host_link("one"), host_link("two")}

    assert host.send(ask("GC", **{EARLIER: keep(("two", "eth0"))})).status == 0
    assert host.pod_links == {host_link("two")}
    _detach(host, ["one", "two", "three"])


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({}, 7),
        ({VALID: [{"containerID": "one", "ifname": ""}]}, 7),
        ({VALID: [{"containerID": "one"}]}, 6),
        ({VALID: {"containerID": "one"}}, 6),
    ],
    ids=["neither key", "empty name", "no name", "no list"],
)
def test_a_collection_that_does_not_say_what_to_keep_removes_nothing(
    host: Host, keys: dict[str, object], code: int
) -> None:
    host.add("one")

    said = host.send(ask("GC", **keys))

    assert not problems([said], status=1, code=code)
    assert host.pod_links == {host_link("one")}
    host.drop("one")


def test_null_keeps_none_as_libcni_writes_it_for_a_runtime_without_containers(host: Host) -> None:
    host.add("one")
    assert host.send(ask("GC", **{VALID: None})).status == 0
    assert host.pod_links == set()
    host.drop("one")


def test_an_attachment_is_kept_by_container_and_interface_together(host: Host) -> None:
    host.add("pair")

    assert host.send(ask("GC", **{VALID: keep(("pair", "eth1"), ("riap", "eth0"))})).status == 0

    assert host.pod_links == set()
    host.drop("pair")


@pytest.mark.matrix(id="T08", full=1000, reduced=60)
def test_no_attachment_made_during_a_collection_is_lost_to_it(host: Host, count: int) -> None:
    """The collection has arrived when the first of its links vanishes; ADDs sent from then on are
    not its business, also where they are for a key that it has just removed."""
    _attach(host, ["settled"])
    request = ask("GC", **{VALID: keep(("settled", "eth0"))})
    again = [f"again-{n}" for n in range(10)]
    others = [[f"{side}-{n}" for n in range(10)] for side in ("even", "odd")]
    host.make(others[1])
    _attach(host, again + others[0])
    raced = overlapped = 0
    for turn in range(1, count // 20 + 1):
        doomed = [*again, *others[(turn + 1) % 2]]
        fresh = [*again, *others[turn % 2]]
        ends = calls.call(
            host.node,
            _race,
            request,
            [ask("ADD", name) for name in fresh],
            [host_link(name) for name in doomed],
        )
        assert ends["collected"] == 0
        assert ends["statuses"] == [0] * len(fresh)
        assert host.pod_links == {host_link(name) for name in ("settled", *fresh)}
        raced += len(fresh)
        overlapped += ends["overlapped"]
    assert raced >= count - 20
    assert overlapped > 0, "no ADD was sent while a collection ran, so nothing is proven"
    _detach(host, ["settled", *again])
    for names in others:
        _detach(host, names)


def _race(collection: Ask, adds: list[Ask], doomed: list[str]) -> dict[str, object]:
    """Send the collection, wait for its first effect, then attach. Runs inside the node."""
    with subprocess.Popen(
        [LAUNCHER], env=collection.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as collecting:
        assert collecting.stdin is not None
        collecting.stdin.write(collection.stdin)
        collecting.stdin.close()
        links = [f"/sys/class/net/{name}" for name in doomed]
        while all(map(os.path.exists, links)) and collecting.poll() is None:
            continue
        overlapped = collecting.poll() is None
        answers = execute_all(adds, 8, 60.0)
        collected = collecting.wait(timeout=60)
    return {
        "collected": collected,
        "statuses": [answer[0] for answer in answers],
        "overlapped": overlapped,
    }
