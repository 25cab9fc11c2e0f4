"""T36: files of the agent that vanish, break, or lie on a disk that takes nothing."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from acceptance import SLACK, Answer, Host, ask, host_link, problems
from weft.lab import truth

JOURNAL = "/run/weft/journal.db"
STORE = "/var/lib/weft/store.db"
FILES = (JOURNAL, f"{JOURNAL}-wal", STORE, f"{STORE}-wal")
REBUILT = 10.0  # seconds
SMALL = "/run/small"  # where the node has a file system of its own: /mnt is the machine's


def _tidy(host: Host) -> None:
    """Remove what was set aside: a person would have looked at it."""
    host.shell("rm -f /run/weft/*.damaged* /var/lib/weft/*.damaged* /var/lib/weft/*.new*")


def _held(host: Host) -> Counter[str]:
    found: Counter[str] = Counter()
    for pod in host.node.path("/run/netns").iterdir():
        found.update(truth.addresses(pod, "eth0"))
    return found


def _fill(host: Host, count: int) -> dict[str, Answer]:
    names = [f"pod-{n}" for n in range(count)]
    host.make(names)
    said = host.storm([ask("ADD", name) for name in names])
    assert not problems(said)
    return dict(zip(names, said, strict=True))


def _all_there(host: Host, pods: dict[str, Answer]) -> None:
    """Every pod is known as it was answered, and a new one gets addresses of its own."""
    checks = [ask("CHECK", name, prevResult=said.json) for name, said in pods.items()]
    assert not problems(host.storm(checks))
    host.make(["later"])
    assert host.send(ask("ADD", "later")).status == 0
    assert [address for address, times in _held(host).items() if times > 1] == []
    host.drop("later")


def _empty(host: Host, pods: dict[str, Answer]) -> None:
    assert not problems(host.storm([ask("DEL", name) for name in pods]))
    host.unmake(list(pods))
    assert host.pod_links == set()
    _tidy(host)


@pytest.fixture
def pods(host: Host) -> Iterator[dict[str, Answer]]:
    made = _fill(host, 6)
    yield made
    _empty(host, made)


def _spoil(host: Host, name: str, dice: random.Random) -> str:
    """Flip a bit, cut the file short, or delete it."""
    path = host.node.path(name)
    if not path.exists() or path.stat().st_size == 0:
        return f"{name} is not there"
    content = bytearray(path.read_bytes())
    how = dice.choice(("flip", "flip", "flip", "cut", "delete"))
    if how == "delete":
        path.unlink()
        return f"{name} deleted"
    place = dice.randrange(len(content))
    if how == "flip":
        content[place] ^= 1 << dice.randrange(8)
    else:
        del content[place:]
    path.write_bytes(content)
    return f"{name} {how} at {place}"


@pytest.mark.matrix(id="T36 damage", full=200, reduced=12)
def test_no_damage_of_a_file_drops_a_pod_or_issues_an_address_twice(
    host: Host, pods: dict[str, Answer], count: int
) -> None:
    for turn in range(count):
        dice = random.Random(turn)
        host.end()
        done = _spoil(host, dice.choice(FILES), dice)
        print(f"turn {turn}: {done}")
        assert host.start() < REBUILT * SLACK
        _all_there(host, pods)
        _tidy(host)


def test_store_and_journal_lost_together_are_made_again(
    host: Host, pods: dict[str, Answer]
) -> None:
    before = host.shell("cat /var/lib/weft/given.json")
    host.end()
    host.shell(f"rm -f {JOURNAL}* {STORE}*")
    host.start()
    _all_there(host, pods)
    assert host.shell("cat /var/lib/weft/given.json") == before


def test_an_emptied_store_gets_its_objects_back(host: Host, pods: dict[str, Answer]) -> None:
    host.weft("label", "namespace", "blue", "team=a")
    before = host.weft("get", "ippools", "-o", "json")
    host.end()
    host.shell(f"rm -f {STORE}*; touch {STORE}")
    host.start()
    _all_there(host, pods)
    spec = [item["spec"] for item in json.loads(before)["items"]]
    after = json.loads(host.weft("get", "ippools", "-o", "json"))["items"]
    assert [item["spec"] for item in after] == spec
    assert "blue" in host.weft("get", "namespaces")
    assert "StoreRestored" in host.weft("get", "events")
    host.weft("delete", "namespace", "blue")


@pytest.mark.parametrize("lost", [f"{JOURNAL}*", STORE, f"{STORE}*", "/var/lib/weft/given.json"])
def test_a_file_lost_under_the_living_agent_is_made_again(
    host: Host, pods: dict[str, Answer], lost: str
) -> None:
    host.shell(f"rm -f {lost}")
    first = host.node.path(lost.rstrip("*"))
    deadline = time.monotonic() + REBUILT * SLACK
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert first.exists()
    assert host.send(ask("STATUS")).status == 0
    host.restart()
    _all_there(host, pods)


def test_a_full_disk_refuses_add_lets_del_pass_and_is_recovered_from(
    host: Host, pods: dict[str, Answer]
) -> None:
    """The journal's file system is full: a tmpfs as small as what is on it."""
    host.make(["refused"])
    host.shell(
        f"size=$(du -sk /run/weft | cut -f1); mkdir {SMALL}; mount -t tmpfs -o "
        f"size=$((size + 8))k,mode=700 tmpfs {SMALL}; mount --make-private {SMALL}"
    )
    try:
        _on_a_small_disk(host, pods)
    finally:
        host.shell(f"umount -l /run/weft 2>/dev/null || true; umount -l {SMALL}; rmdir {SMALL}")
        host.restart()
    host.unmake(["refused"])


def _on_a_small_disk(host: Host, pods: dict[str, Answer]) -> None:
    host.end()
    host.shell(f"cp -a /run/weft/. {SMALL}/; mount --bind {SMALL} /run/weft")
    host.start()
    host.shell("dd if=/dev/zero of=/run/weft/filler bs=1k 2>/dev/null || true")
    deadline = time.monotonic() + REBUILT * SLACK
    said = host.send(ask("ADD", "refused"))
    while said.status == 0 and time.monotonic() < deadline:  # pages that the log still has
        assert host.send(ask("DEL", "refused")).status == 0
        said = host.send(ask("ADD", "refused"))
    assert not problems([said], status=1, code=11)
    assert JOURNAL.encode() in said.stdout
    assert host_link("refused") not in host.pod_links
    gone = next(iter(pods))
    assert host.send(ask("DEL", gone)).status == 0
    assert not problems([host.send(ask("STATUS"))], status=1, code=50)
    host.shell(f"rm /run/weft/filler; mount -o remount,size=16m {SMALL}")
    freed = time.monotonic()
    while host.send(ask("STATUS")).status != 0 and time.monotonic() < freed + REBUILT * SLACK:
        time.sleep(0.2)
    pods[gone] = host.send(ask("ADD", gone))
    assert pods[gone].status == 0
    host.shell("umount -l /run/weft; true")
    host.shell(f"cp -a {SMALL}/journal.db* /run/weft/ 2>/dev/null || true")


@pytest.mark.matrix(id="T36 rebuild", full=1000, reduced=40)
def test_a_journal_is_rebuilt_from_the_kernel_in_time(host: Host, count: int) -> None:
    made = _fill(host, count)
    host.end()
    host.shell(f"rm -f {JOURNAL}*")
    took = host.start()
    print(f"{count} attachments known again in {took:.1f} s")
    assert took < REBUILT
    _all_there(host, made)
    wrong = host.send(ask("CHECK", "pod-0", pod="pod-1", prevResult=made["pod-0"].json))
    assert wrong.status == 1, "another container's namespace is told, also after a rebuild"
    _empty(host, made)
