"""T36: the file system under the journal or the store fails, goes read-only, or takes no file.

The faults are real ones: a file system on a loop device that the kernel shuts down
(EXT4_IOC_SHUTDOWN: every call answers EIO) or makes read-only after an error that it was told to
find (`trigger_fs_error`: EROFS), and a tmpfs without a free inode or block (ENOSPC).
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acceptance import SLACK, Answer, Host, ask, host_link, pool, problems
from weft.lab import truth

RUN, STATE = "/run/weft", "/var/lib/weft"
JOURNAL, STORE = f"{RUN}/journal.db", f"{STATE}/store.db"
IMAGE, ASIDE = "/run/failing.img", "/run/aside"
REBUILT = 10.0  # seconds
PATIENCE = REBUILT * SLACK
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
ON_LOOP, IN_MEMORY = f"ext4 -o loop,errors=remount-ro {IMAGE}", "tmpfs -o size=16m,mode=700 tmpfs"

Fault = Callable[[Host, str], None]


# -- faults of the file system that is mounted at `where`


def _shut_down(host: Host, where: str) -> None:
    directory = os.open(host.node.path(where), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(directory, SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
    finally:
        os.close(directory)


def _read_only(host: Host, where: str) -> None:
    device = os.path.basename(host.shell(f"findmnt -no SOURCE {where}").strip())
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")
    with pytest.raises(OSError, match="Read-only"):
        host.node.path(f"{where}/probe").touch()


def _without_inodes(host: Host, where: str) -> None:
    host.shell(f"mount -o remount,nr_inodes=$(stat -fc '%c - %d' {where} | xargs expr) {where}")


def _full(host: Host, where: str) -> None:
    host.shell(f"dd if=/dev/zero of={where}/filler bs=64k 2>/dev/null || true")


FAULTS: dict[str, tuple[str, Fault]] = {
    "EIO": (ON_LOOP, _shut_down),
    "read-only": (ON_LOOP, _read_only),
    "no inode": (IN_MEMORY, _without_inodes),
    "full": (IN_MEMORY, _full),
}


@contextmanager
def _disk_of_its_own(host: Host, where: str, kind: str) -> Iterator[None]:
    """What is in `where` lies on a file system that can be broken, and the agent runs on it; at
    the end nothing of ours is attached, and what was below comes to light again untouched.

    Only /run and the directories with state are the node's own: /mnt is the machine's.
    """
    host.end()
    if kind == ON_LOOP:
        host.shell(f"truncate -s 16m {IMAGE}; mkfs.ext4 -q {IMAGE}")
    host.shell(
        f"mkdir {ASIDE}; mount -t {kind} {ASIDE}; chmod 700 {ASIDE}; cp -a {where}/. {ASIDE}/; "
        f"sync -f {ASIDE}; "
        f"mount --move {ASIDE} {where}; rmdir {ASIDE}"
    )
    try:
        host.start()
        yield
    finally:
        host.end()
        host.shell(f"umount {where}; rm -f {IMAGE}")
    host.start()


def _come_back(host: Host, where: str, kind: str) -> None:
    """What a person does about it. The agent is ended only where that takes an unmount."""
    if kind == IN_MEMORY:
        host.shell(f"rm -f {where}/filler; mount -o remount,nr_inodes=1000 {where}")
        return
    host.end()
    host.shell(f"umount {where}; mount -t {kind} {where}")
    assert host.start() < REBUILT * SLACK


# -- what is looked at


def _attached(host: Host, count: int) -> dict[str, Answer]:
    names = [f"pod-{n}" for n in range(count)]
    host.make(names)
    said = host.storm([ask("ADD", name) for name in names])
    assert not problems(said)
    return dict(zip(names, said, strict=True))


def _refused(host: Host, request: str, said: bytes, **how: object) -> None:
    """ADD is refused with a code for "again" or "not now", and names the file."""
    deadline = time.monotonic() + PATIENCE
    answer = host.send(ask("ADD", request, **how))
    while answer.status == 0 and time.monotonic() < deadline:  # the last pages that were free
        assert host.send(ask("DEL", request)).status == 0
        answer = host.send(ask("ADD", request, **how))
    assert answer.is_clean and answer.code in (11, 50), answer
    assert said in answer.stdout, answer
    assert host_link(request) not in host.pod_links


def _as_it_should_be(host: Host, pods: dict[str, Answer]) -> None:
    """Exactly these pods are there, as they were answered, and no address is anybody's twice."""
    deadline = time.monotonic() + PATIENCE
    while host.send(ask("STATUS")).status != 0:
        assert time.monotonic() < deadline, "the agent does not find that its disk is back"
        time.sleep(0.1)
    checks = [ask("CHECK", name, prevResult=said.json) for name, said in pods.items()]
    assert not problems(host.storm(checks))
    assert host.pod_links == {host_link(name) for name in pods}
    assert host.used() == 2 * len(pods)
    host.add("later")
    held: Counter[str] = Counter()
    for name in (*pods, "later"):
        held.update(truth.addresses(host.network(name), "eth0"))
    assert [address for address, times in held.items() if times > 1] == []
    host.drop("later")


def _gone(host: Host, name: str, pods: dict[str, Answer]) -> None:
    """DEL says that it is done, and the link is gone."""
    said = host.send(ask("DEL", name))
    assert said.status == 0, said
    assert host_link(name) not in host.pod_links
    host.unmake([name])
    del pods[name]


def _starts_or_says_why(host: Host, named: str, *, goes_on: bool, **how: object) -> None:
    """An agent that starts on such a disk refuses ADD, or ends with the file's name; it may serve
    where the disk takes what an ADD needs (`goes_on`)."""
    before = len(host.log())
    host.start(wait=False)
    deadline = time.monotonic() + PATIENCE
    while host.is_running and not host.answers():
        assert time.monotonic() < deadline, host.log()[before:]
        time.sleep(0.05)
    said = host.log()[before:]
    assert "Traceback" not in said, said
    if not host.is_running:
        assert os.path.dirname(named) in said, said
    elif not goes_on:
        _refused(host, "refused", named.encode(), **how)


def _under_the_journal(host: Host, name: str) -> None:
    """Nothing new begins, DEL goes on, and no pod and no address is lost."""
    kind, fault = FAULTS[name]
    with _disk_of_its_own(host, RUN, kind):
        pods = _attached(host, 5)
        fault(host, RUN)
        host.make(["refused"])
        if name == "no inode":  # what is open goes on
            assert host.send(ask("ADD", "refused")).status == 0
            assert host.send(ask("DEL", "refused")).status == 0
        else:
            _refused(host, "refused", JOURNAL.encode())
            assert not problems([host.send(ask("STATUS"))], status=1, code=50)
        _gone(host, "pod-0", pods)
        host.end()
        _gone(host, "pod-1", pods)  # by the launcher alone, which cannot queue it either
        _starts_or_says_why(host, JOURNAL, goes_on=name == "no inode")
        _come_back(host, RUN, kind)
        if not host.is_running:
            assert host.start() < REBUILT * SLACK
        _as_it_should_be(host, pods)
        host.unmake(["refused"])
        for pod in tuple(pods):
            _gone(host, pod, pods)
    _as_it_should_be(host, {})


def _under_the_store(host: Host, name: str) -> None:
    """New blocks and changes of objects stop, and nothing else."""
    kind, fault = FAULTS[name]
    with _disk_of_its_own(host, STATE, kind):
        pods = _attached(host, 4)
        host.apply(pool("tight", "10.99.0.0/28"))  # whose only block nobody has yet
        fault(host, STATE)
        host.make(["refused", "served"])
        if name == "no inode":  # what is open goes on, and a lost file cannot be made anew
            host.shell(f"rm {STORE}")
        else:
            _refused(host, "refused", STORE.encode(), pools=["tight"])
            host.weft("label", "namespace", "blue", "team=a", good=False)
        pods["served"] = host.send(ask("ADD", "served"))
        assert pods["served"].status == 0, "the blocks that the node has need no store"
        _gone(host, "pod-0", pods)
        host.end()
        _starts_or_says_why(host, STORE, goes_on=name == "no inode", pools=["tight"])
        _come_back(host, STATE, kind)
        if not host.is_running:
            assert host.start() < REBUILT * SLACK
        _as_it_should_be(host, pods)
        assert host.send(ask("ADD", "refused", pools=["tight"])).status == 0
        assert host.send(ask("DEL", "refused")).status == 0
        host.weft("delete", "ippool", "tight")
        host.unmake(["refused"])
        for pod in tuple(pods):
            _gone(host, pod, pods)
    _as_it_should_be(host, {})


CASES = [(under, name) for name in FAULTS for under in (_under_the_journal, _under_the_store)]


@pytest.mark.matrix(id="T36 failing disks", full=8, reduced=1)
def test_a_failing_disk_costs_no_pod_and_no_address(host: Host, count: int) -> None:
    assert len(CASES) == 8
    for under, name in CASES[:count]:
        print(under.__name__, name)
        under(host, name)
