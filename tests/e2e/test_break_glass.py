"""The rules are taken away in an emergency, with everything else of weft's in ruins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from acceptance import SLACK, Host, host_link
from lies import HOST_MAC
from weft.lab import cluster, frames, probes
from weft.lab.ears import Ear, Mouth, nonce
from weft.lab.nodes import CLEAN_PATH

SUPERVISE = Path(__file__).resolve().parents[2] / "deploy" / "weft-supervise"
RUINS = (
    "echo 'bogus: {' > /etc/weft/weft.yaml;"
    "for f in /run/weft/journal.db /var/lib/weft/store.db; do rm -f $f*; echo ruin > $f; done"
)


def _tables(host: Host) -> set[str]:
    return set(host.shell("nft list tables").splitlines())


def _break(host: Host, *words: str) -> dict[str, object]:
    done = host.node.run(
        [sys.executable, "-m", "weft.main", "break-glass", "-o", "json", *words],
        env={"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _forged(host: Host, me: str, mac: str, goal: str, victim: str) -> bool:
    """Whether a packet under another's address arrives. Over IPv6: of IPv4 the kernel itself asks
    where a source would be answered (rp_filter)."""
    mark = nonce()
    ear, mouth = Ear(host.network(victim)), Mouth(host.network(me))
    try:
        packet = frames.packet("2001:db8:bad::9", goal, (1, 2), mark)
        mouth.say(frames.ethernet(HOST_MAC, mac, frames.kind_of(goal), packet))
        return ear.hears(mark, 0.3) is not None
    finally:
        ear.socket.close()
        mouth.socket.close()


@contextmanager
def _supervised(host: Host) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that is started again whenever it ends."""
    environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    kept = host.node.popen(
        [sys.executable, str(SUPERVISE), "/run/supervisor.pid", *cluster.agent_command()],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10.0 * SLACK
        while not host.answers():
            assert time.monotonic() < deadline, "the supervised agent does not answer"
            time.sleep(0.02)
        yield kept
    finally:
        if kept.poll() is None:
            kept.terminate()
            kept.wait(timeout=30)


def test_beside_a_stopped_agent_and_ruined_files_the_rules_go_and_the_next_agent_has_them_back(
    new_host: Callable[..., Host],
) -> None:
    host = new_host()
    settings = host.node.path(str(cluster.SETTINGS)).read_text()
    host.shell("nft add table inet foreign; nft add table ip weft")
    with _supervised(host) as kept:
        said = {name: host.add(name) for name in ("one", "two")}
        links = sorted(map(host_link, said))
        mac, goal = said["one"].json["interfaces"][1]["mac"], said["two"].addresses[1]
        before = host.snapshot()
        assert "weft explain agent-alive" in host.weft("break-glass", "--yes", good=False)
        assert host.settled(before) == []
        assert not _forged(host, "one", mac, goal, "two")

        agent = int(host.shell(f"pgrep -P {kept.pid}").split()[0])
        os.kill(agent, signal.SIGSTOP)
        host.shell(RUINS)
        found = _break(host, "--force", "--yes")
        assert found["outcome"] == "removed"
        assert sorted(p["role"] for p in found["processes"]) == ["agent", "supervisor"]
        kept.wait(timeout=5.0)
    assert _tables(host) == {"table inet foreign", "table ip weft"}
    assert probes.icmp(host.network("one"), goal).answered
    assert _forged(host, "one", mac, goal, "two"), "as the command says: they are unguarded"
    again = _break(host, "--close-pods", "--yes")
    assert (again["outcome"], again["shut"]) == ("removed", links)
    assert not probes.icmp(host.network("one"), goal, patience=0.3).answered

    host.node.path(str(cluster.SETTINGS)).write_text(settings)
    host.start()
    assert {"table inet weft", "table arp weft", "table bridge weft"} <= _tables(host)
    assert probes.icmp(host.network("one"), goal).answered
    assert not _forged(host, "one", mac, goal, "two")
    for name in said:
        host.drop(name)
