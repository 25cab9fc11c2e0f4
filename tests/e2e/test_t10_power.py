"""T10: the power fails: the store's file system stops in the midst of work (EXT4_IOC_SHUTDOWN)."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from collections import Counter

import pytest

from acceptance import Host, ask, execute_all, problems
from weft.lab import calls, truth

IMAGE = "/run/disk.img"
STATE = "/var/lib/weft"
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def _cut(names: list[str], millis: int, agent: int) -> None:
    """ADDs and DELs; in their midst the disk stops, and then the agent. Runs inside the node."""
    child = os.fork()
    if child == 0:
        execute_all([ask(verb, name) for name in names for verb in ("ADD", "DEL")], 4, 30.0)
        os._exit(0)
    time.sleep(millis / 1000)
    directory = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(directory, SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
    os.close(directory)
    os.kill(agent, 9)
    os.waitpid(child, 0)


@pytest.mark.matrix(id="T10", full=300, reduced=3)
def test_after_a_power_cut_the_store_opens_and_nothing_is_leaked(host: Host, count: int) -> None:
    names = [f"pod-{n}" for n in range(12)]
    host.make([*names, "witness"])
    host.end()
    host.shell(
        f"truncate -s 24m {IMAGE}; mkfs.ext4 -q {IMAGE}; mount -o loop {IMAGE} /mnt; "
        f"chmod 700 /mnt; cp -a {STATE}/. /mnt/; umount /mnt; mount -o loop {IMAGE} {STATE}"
    )
    try:
        host.start()
        assert host.send(ask("ADD", "witness")).status == 0
        for turn in range(count):
            millis = random.Random(turn).randrange(5, 400)
            calls.call(host.node, _cut, names, millis, host.pid, timeout=120.0)
            host.end()
            host.shell(f"umount {STATE}; mount -o loop {IMAGE} {STATE}")
            # every second time the journal is lost with it, while the containers live on
            if turn % 2:
                host.shell("rm -f /run/weft/journal.db*")
            host.start()
            held: Counter[str] = Counter()
            for pod in [*names, "witness"]:
                held.update(truth.addresses(host.network(pod), "eth0"))
            assert [address for address, times in held.items() if times > 1] == [], turn
            assert not problems(host.storm([ask("DEL", name) for name in names]))
            assert host.used() == 2, f"turn {turn}: addresses are leaked"
        assert host.send(ask("DEL", "witness")).status == 0
    finally:
        host.end()
        host.shell(f"umount {STATE}; rm -f {IMAGE}")
    host.start()
    host.unmake([*names, "witness"])
