"""`weft upgrade`: one release takes the place of another, or nothing changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance import SLACK, ask, problems
from releases import LINK, PIDFILE, KeptHost, Laid, lay_present
from weft.lab import cluster

Releases = dict[str, Laid]
RECORD = "/var/lib/weft/upgrade"
AGENT_WITHIN = 10.0
"""Seconds after which a node whose upgrade was killed has an agent that serves."""


@pytest.fixture
def kept(releases: Releases, new_kept: Callable[[Laid], KeptHost]) -> KeptHost:
    """A node on which the old release serves, with one pod."""
    host = new_kept(releases["old"])
    host.shell("mkdir -m 700 -p /run/weft/queue")
    return host


def _is(host: KeptHost, release: Laid) -> bool:
    """Whether agent, link and launcher are those of the release, and nothing is on record."""
    expected = (release.version, release.program, release.launcher.read_bytes())
    return host.versions() == expected and not host.node.path(RECORD).exists()


def _good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_upgrade_and_the_way_back(kept: KeptHost, releases: Releases) -> None:
    old, new = releases["old"], releases["new"]
    pod = kept.add("pod")
    before = kept.snapshot()

    planned = _good(kept.upgrade(new, "--dry-run"))
    assert "agent      planned" in planned
    assert "nothing was changed" in planned
    assert _is(kept, old)
    assert kept.settled(before) == []

    report = json.loads(_good(kept.upgrade(new, "-o", "json")))
    assert report["outcome"] == "upgraded"
    assert (report["origin"]["version"], report["goal"]["version"]) == (old.version, new.version)
    assert [step["name"] for step in report["steps"]] == ["link", "agent", "launchers", "answer"]
    assert all(step["state"] == "done" for step in report["steps"])
    assert _is(kept, new)
    assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0
    assert "nothing to do" in _good(kept.upgrade(new))
    left = kept.snapshot()["files"] - before["files"]  # what the newer release keeps beside

    report = json.loads(_good(kept.upgrade(new, "--to", old.program, "-o", "json")))
    assert [step["name"] for step in report["steps"]] == ["launchers", "agent", "link", "answer"]
    assert _is(kept, old)
    assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0
    before["files"] += left
    assert kept.settled(before) == []
    kept.drop("pod")


def test_a_release_that_cannot_read_what_is_there_is_refused_untouched(
    kept: KeptHost, releases: Releases
) -> None:
    """Settings, a queued deletion and a link's record of a newer release."""
    new = releases["new"]
    agent = kept.agent_pid()
    kept.shell(
        "umask 077; echo 'later: {thing: 1}' >/etc/weft/weft.yaml;"
        "printf 'WFT1\\11\\0\\1\\0\\0\\0\\0\\0' >/run/weft/queue/ff.req;"
        "ip link add later type veth; ip link set later alias 'weft:9 net pod eth0'"
    )
    before = kept.snapshot()
    said = kept.upgrade(new)
    assert said.returncode == 1
    for words in ("nothing was changed", "later", "protocol 9", "format 9", "upgrade-refused"):
        assert words in said.stderr, said.stderr
    assert kept.settled(before) == []
    assert kept.agent_pid() == agent
    kept.shell("rm /etc/weft/weft.yaml /run/weft/queue/ff.req; ip link del later")
    assert _is(kept, releases["old"])


def test_without_a_keeper_a_link_or_a_launcher_nothing_is_done(
    kept: KeptHost, releases: Releases
) -> None:
    new = releases["new"]
    bins = cluster.BINS
    for damage, mend, words in (
        (f"mv {PIDFILE} /run/pid", f"mv /run/pid {PIDFILE}", "nobody keeps the agent running"),
        (f"mv {bins}/weft /run/l", f"mv /run/l {bins}/weft", "--bin-dir"),
        (f"mv {LINK} /run/p; cp -L /run/p {LINK}", f"mv /run/p {LINK}", "no symbolic link"),
    ):
        kept.shell(damage)
        said = kept.upgrade(new)
        assert said.returncode == 1
        assert words in said.stderr
        kept.shell(mend)
    said = kept.upgrade(new, "--to", "/bin/true")
    assert said.returncode == 2
    assert "--to" in said.stderr or "could not be asked" in said.stderr
    assert _is(kept, releases["old"])


def test_two_upgrades_at_once_are_refused(kept: KeptHost, releases: Releases) -> None:
    with subprocess.Popen(
        ["flock", "-o", str(kept.node.path("/var/lib/weft")), "sleep", "60"]
    ) as lock:
        try:
            deadline = time.monotonic() + 10
            while "at work" not in (said := kept.upgrade(releases["new"], "--dry-run")).stderr:
                assert time.monotonic() < deadline, said
        finally:
            lock.kill()
    _good(kept.upgrade(releases["new"], "--dry-run"))


def test_an_agent_that_does_not_serve_is_replaced_by_the_old_one(
    kept: KeptHost, releases: Releases, tmp_path: Path
) -> None:
    broken = lay_present(tmp_path / "broken")
    service = tmp_path / "broken/package/src/weft/agent/service.py"
    text = service.read_text()
    begin = "await service.start()"  # journal and store are in the newer formats by then
    assert begin in text
    service.write_text(text.replace(begin, "raise OSError('broken')", 1))
    pod = kept.add("pod")
    before = kept.snapshot()
    said = kept.upgrade(broken, "--timeout", "5")
    assert said.returncode == 1
    assert "everything was put back" in said.stderr
    assert "weft agent: broken" in said.stderr, "the end of the agent's log"
    assert _is(kept, releases["old"])
    left = [line for line in kept.settled(before, 1.0) if "/var/lib/weft/given.json" not in line]
    assert left == [], "the newer release keeps one file more, for its next start"
    assert kept.send(ask("CHECK", "pod", prevResult=pod.json)).status == 0
    kept.drop("pod")


def test_launchers_and_agents_one_release_apart_understand_each_other(
    kept: KeptHost, releases: Releases
) -> None:
    """Both ways, every verb, with the real programs."""
    place = kept.node.path(cluster.BINS / "weft")

    def every_verb() -> None:
        kept.make(["skew"])
        added = kept.send(ask("ADD", "skew"))
        assert added.status == 0
        answers = kept.storm(
            [
                ask("VERSION"),
                ask("STATUS"),
                ask("CHECK", "skew", prevResult=added.json),
                ask(
                    "GC",
                    **{"cni.dev/valid-attachments": [{"containerID": "skew", "ifname": "eth0"}]},
                ),
                ask("CHECK", "skew", prevResult=added.json),
                ask("DEL", "skew", prevResult=added.json),
                ask("DEL", "skew"),
            ],
            workers=1,
        )
        assert not problems(answers)
        assert kept.pod_links == set()
        agent = kept.agent_pid()
        os.kill(kept.pid, signal.SIGSTOP)  # the supervisor starts none meanwhile
        os.kill(agent, signal.SIGKILL)
        assert kept.send(ask("DEL", "skew")).status == 0  # queued
        assert kept.send(ask("ADD", "skew")).code == 11
        os.kill(kept.pid, signal.SIGCONT)
        _await_agent(kept)
        assert not list(kept.node.path("/run/weft/queue").glob("*.req"))
        kept.unmake(["skew"])

    place.unlink()
    place.write_bytes(releases["new"].launcher.read_bytes())
    place.chmod(0o755)
    every_verb()  # launcher N, agent N-1
    _good(kept.upgrade(releases["new"]))
    place.unlink()
    place.write_bytes(releases["old"].launcher.read_bytes())
    place.chmod(0o755)
    every_verb()  # launcher N-1, agent N


def _await_agent(host: KeptHost) -> None:
    deadline = time.monotonic() + AGENT_WITHIN * SLACK
    while not host.answers():
        assert time.monotonic() < deadline, host.log()[-2000:]
        time.sleep(0.05)
