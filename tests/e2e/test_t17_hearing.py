"""T17 where notifications fail: lost, cut off, or without end because somebody fights back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acceptance import SLACK, Host, host_link, watched
from deafness import deafen, hearings, shrink
from weft.cli.machine import page
from weft.kernel.nftables.transport import NETLINK_NETFILTER
from weft.kernel.rtnetlink import NETLINK_ROUTE
from weft.lab import calls

METRICS = "127.0.0.1:9464"
UNPROTECTED = "ruleset:\n  protected: never\n"
REPAIRED = 1.0
DAMAGE = (
    "ip link set {link} mtu 1300; ip neigh del {four} dev {link}; nft flush set inet weft guard4;"
    "ip route del {four}"
)
BURST = 300  # foreign changes of each kind; some fill the smallest buffer
OFTEN, LONGEST = 20, 8.0  # as docs/healing.md says
QUICK_SWEEP = 1.0
BUSY = 0.25  # of a processor, at most, in a fight


def _agent_with(change: str) -> list[str]:
    """An agent with another constant, for a run that has less time."""
    program = (
        f"from weft.agent import contest, watch; {change};"
        "from weft.main import main; raise SystemExit(main(['agent']))"
    )
    return [sys.executable, "-c", program]


@contextmanager
def _stopped(host: Host) -> Iterator[None]:
    os.kill(host.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(host.pid, signal.SIGCONT)


def _words(host: Host, pod: str) -> dict[str, str]:
    return {"link": host_link(pod), "four": host.add(pod).addresses[0]}


def _losers(host: Host) -> dict[int, int]:
    """What waits in sockets that have lost something, by protocol."""
    return {each.protocol: each.waiting for each in hearings(host.pid) if each.lost}


def _repairs(host: Host) -> int:
    """Rows that were mended, as the agent counts them."""
    text = calls.call(host.node, page, METRICS, "/metrics")[1]
    lines = [line for line in text.splitlines() if line.startswith("weft_repairs_total{")]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def test_notifications_that_were_lost_make_the_agent_look_at_everything(
    new_host: Callable[..., Host],
) -> None:
    """The sweep would come half a minute later only."""
    with watched(new_host(UNPROTECTED)) as host:
        words = _words(host, "one")
        before = host.snapshot()
        shrink(host.pid)
        with _stopped(host):
            host.shell(
                f"for n in $(seq {BURST}); do echo route add 198.18.0.$((n % 250 + 1)) dev eth0;"
                "echo route del 198.18.0.$((n % 250 + 1)); done | ip -batch -;"
                f"for n in $(seq {BURST}); do echo add table inet foreign$n;"
                "echo delete table inet foreign$n; done | nft -f -"
            )
            full = _losers(host)
            assert full.keys() == {NETLINK_ROUTE, NETLINK_NETFILTER}, f"nothing was lost: {full}"
            host.shell(DAMAGE.format(**words))
            assert _losers(host) == full, "the damage itself was announced"
        assert host.settled(before, patience=REPAIRED * SLACK) == []
        host.drop("one")


@pytest.mark.matrix(id="T17", full=30, reduced=1)
def test_the_sweep_alone_mends_what_nobody_announces(
    new_host: Callable[..., Host], count: int
) -> None:
    """`count`: seconds between two sweeps; 30 are the agent's own."""
    made = new_host(UNPROTECTED)
    if count != 30:
        made.command = _agent_with(f"watch.SWEEP = {count}.0")
    with watched(made) as host:
        words = _words(host, "one")
        before = host.snapshot()
        deafen(host.pid)
        with _stopped(host):
            host.shell(DAMAGE.format(**words))
            assert not any(each.waiting for each in hearings(host.pid)), "something is heard"
        assert host.settled(before, patience=count + 2 * REPAIRED * SLACK) == []
        assert _repairs(host) >= 4
        host.drop("one")


class Fighter(threading.Thread):
    """Puts another route in the place of a container's every ten milliseconds, and removes it."""

    def __init__(self, host: Host, address: str) -> None:
        super().__init__(daemon=True)
        self._ip = host.node.popen(
            ["ip", "-force", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._lines = f"route replace unreachable {address}/32\nroute del {address}/32\n".encode()
        self._over = threading.Event()
        self.blows = 0

    def run(self) -> None:
        assert self._ip.stdin is not None
        while not self._over.wait(0.01):
            self._ip.stdin.write(self._lines)
            self._ip.stdin.flush()
            self.blows += 1

    def close(self) -> None:
        """All blows have fallen when this returns."""
        self._over.set()
        self.join()
        assert self._ip.stdin is not None
        self._ip.stdin.close()
        self._ip.wait(timeout=30)


def _spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _contested(host: Host) -> list[str]:
    status = json.loads(host.weft("status", "-o", "json", good=True))
    return [why["message"] for why in status["warnings"] if why["reason"] == "contested"]


@pytest.mark.matrix(id="T17", full=30, reduced=1)
def test_who_fights_back_costs_next_to_nothing_is_named_and_mended_when_it_stops(
    new_host: Callable[..., Host], count: int
) -> None:
    """`count`: seconds that the fight goes on after it was noticed."""
    made, often = new_host(), OFTEN
    if count != 30:
        often = 4
        made.command = _agent_with(f"contest.OFTEN = {often}")
    with watched(made) as host:
        words, other = _words(host, "one"), _words(host, "two")
        before = host.snapshot()
        fighter = Fighter(host, words["four"])
        fighter.start()
        try:
            deadline = time.monotonic() + 5.0 * SLACK
            while "reason=Contested" not in host.log():
                assert time.monotonic() < deadline, f"{fighter.blows} blows are no fight"
                time.sleep(0.02)
            assert _repairs(host) >= often
            began, spent, mended = time.monotonic(), _spent(host.pid), _repairs(host)
            host.shell(f"ip link set {other['link']} mtu 1300")
            while _mtu(host, other["link"]) == 1300:
                assert time.monotonic() - began < REPAIRED * SLACK, "others have to wait"
                time.sleep(0.02)
            time.sleep(max(0.0, began + count - time.monotonic()))
            passed = time.monotonic() - began
            share = (_spent(host.pid) - spent) / passed
            mended = _repairs(host) - mended
            named = _contested(host)
        finally:
            fighter.close()
        print(
            f"{fighter.blows} blows; in {passed:.1f} s of the fight {mended} mends, "
            f"{share:.0%} of a processor"
        )
        # 0.5, 1, 2, 4 s apart, then 8: the route, and the one that is in its place
        assert mended <= 1 + 2 * (4 + passed / LONGEST)
        assert share < BUSY
        assert named
        assert all(f"the route to {words['four']}/32" in each for each in named), named
        assert host.settled(before, patience=LONGEST + REPAIRED * SLACK) == []
        for name in ("one", "two"):
            host.drop(name)


def _mtu(host: Host, link: str) -> int:
    return int(host.shell(f"cat /sys/class/net/{link}/mtu"))
