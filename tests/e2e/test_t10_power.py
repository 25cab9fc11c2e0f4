"""T10: the power fails: the store's file system stops in the midst of work (EXT4_IOC_SHUTDOWN)."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from acceptance import Host, ask, execute_all, problems
from weft.lab import calls, truth

IMAGE, ASIDE = "/run/disk.img", "/run/aside"
STATE = "/var/lib/weft"
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
RATE = 20  # ADDs a second, each followed by its DEL


def _come_and_go(name: str) -> None:
    execute_all([ask("ADD", name), ask("DEL", name)], 1, 30.0)


def _load(names: list[str]) -> None:
    """Pods at RATE, whatever becomes of those before."""
    begun = time.monotonic()
    with ThreadPoolExecutor(len(names)) as crowd:
        for number, name in enumerate(names):
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            crowd.submit(_come_and_go, name)


def _cut(names: list[str], millis: int, agent: int) -> None:
    """ADDs and DELs; in their midst the disk stops, and then the agent. Runs inside the node."""
    child = os.fork()
    if child == 0:
        _load(names)
        os._exit(0)
    time.sleep(millis / 1000)
    directory = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(directory, SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
    os.close(directory)
    os.kill(agent, 9)
    os.waitpid(child, 0)


def _lose(host: Host, turn: int) -> str:
    """What is lost besides what was not on the disk yet, while the containers live on."""
    if turn % 3 == 0:
        return "nothing"
    host.shell("rm -f /run/weft/journal.db*")
    if turn % 3 == 1:
        return "the journal"
    host.shell(f"rm -f {STATE}/store.db* {STATE}/given.json /run/weft/queue/*")
    return "everything"


def _judge(host: Host, names: list[str], witness: set[str], turn: int) -> None:
    """No address is anybody's twice; whoever has an interface is known, and is given back."""
    held: Counter[str] = Counter()
    for pod in [*names, "witness"]:
        held.update(truth.addresses(host.network(pod), "eth0"))
    assert [address for address, times in held.items() if times > 1] == [], turn
    assert truth.addresses(host.network("witness"), "eth0") == witness, turn
    assert not problems(host.storm([ask("DEL", name) for name in names]))
    assert host.used() == 2, f"turn {turn}: addresses are leaked"


@pytest.mark.matrix(id="T10", full=300, reduced=3)
def test_after_a_power_cut_the_store_opens_and_nothing_is_leaked(host: Host, count: int) -> None:
    names = [f"pod-{n}" for n in range(12)]
    host.make([*names, "witness"])
    host.end()
    host.shell(
        f"truncate -s 24m {IMAGE}; mkfs.ext4 -q {IMAGE}; mkdir {ASIDE}; mount -o loop {IMAGE} "
        f"{ASIDE}; chmod 700 {ASIDE}; cp -a {STATE}/. {ASIDE}/; umount {ASIDE}; rmdir {ASIDE}; "
        f"mount -o loop {IMAGE} {STATE}"
    )
    try:
        host.start()
        assert host.send(ask("ADD", "witness")).status == 0
        witness = truth.addresses(host.network("witness"), "eth0")
        for turn in range(count):
            millis = random.Random(turn).randrange(5, 1000 * len(names) // RATE)
            calls.call(host.node, _cut, names, millis, host.pid, timeout=120.0)
            host.end()
            host.shell(f"umount {STATE}; mount -o loop {IMAGE} {STATE}")
            print(f"turn {turn}: after {millis} ms; lost is {_lose(host, turn)}")
            host.start()
            _judge(host, names, witness, turn)
        assert host.send(ask("DEL", "witness")).status == 0
    finally:
        host.end()
        host.shell(f"umount {STATE}; rm -f {IMAGE}")
    host.start()
    host.unmake([*names, "witness"])
