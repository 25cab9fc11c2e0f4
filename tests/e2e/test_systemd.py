"""systemd keeps the agent: what weft.socket and weft.service promise, under systemd itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from acceptance import SLACK, ask, host_link, problems
from booted import BootedHost, booted
from former import Before, before
from releases import Laid
from weft.lab.nodes import CLEAN_PATH

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


WATCHDOG = 4.0  # seconds; the unit's are 45
RESTART = 1.0  # RestartSec=
QUICK = f"[Service]\nWatchdogSec={WATCHDOG:.0f}\nTimeoutAbortSec=1\n"
UNITS = ("weft-boot.service", "weft.socket", "weft.service")


@pytest.fixture(scope="module")
def host(releases: dict[str, Laid]) -> Iterator[BootedHost]:
    """This release, kept by its units as docs/install.md has them installed."""
    with booted(releases["new"]) as host:
        host.install(DEPLOY)
        host.write("weft.service.d/quick.conf", QUICK)
        host.node.path("/etc/weft/weft.yaml").write_text("watchdog:\n  limit: 3\n")
        host.start(wait=False)
        host.systemctl("enable", "--now", *UNITS)
        yield host


def _state(host: BootedHost, unit: str = "weft.service") -> str:
    return host.shown(unit, "ActiveState")


def _agent(host: BootedHost) -> int:
    """A process to send signals to; never 0, which would mean ourselves."""
    pid = host.agent_pid()
    assert pid > 1, host.log()[-3000:]
    return pid


def _table(host: BootedHost) -> str:
    """Our rules; without the table's flags, which say whether an agent holds it."""
    return host.guarded().partition("set ")[2]


def _restarts(host: BootedHost) -> int:
    return int(host.shown("weft.service", "NRestarts"))


def test_the_units_start_and_an_agent_that_says_so_is_ready(host: BootedHost) -> None:
    """READY=1 is awaited: `systemctl enable --now` came back, so the agent serves already."""
    assert [_state(host, unit) for unit in UNITS] == ["active"] * 3
    assert host.shown("weft.service", "SubState") == "running"
    began = time.monotonic()
    assert not problems([host.send(ask("STATUS"))])
    assert time.monotonic() - began < RESTART * SLACK
    _agent(host)


def test_the_agent_has_given_up_what_it_never_does_and_attaches_all_the_same(
    host: BootedHost,
) -> None:
    """Under every directive of the unit: ADD, CHECK, DEL, and repair of what somebody damaged."""
    pid = _agent(host)
    status = Path(f"/proc/{pid}/status").read_text()
    held = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert held["NoNewPrivs"] == "1"
    assert held["Seccomp"] == "2"
    bounding = int(held["CapBnd"], 16)
    assert bounding >> 12 & 1, "CAP_NET_ADMIN"
    assert bounding >> 5 & 1, "CAP_KILL: the relay for ::1 is nobody's, and may hang"
    assert not bounding >> 16 & 1, "CAP_SYS_MODULE"
    assert not bounding >> 25 & 1, "CAP_SYS_TIME"
    if bounding >> 24 & 1:  # CAP_SYS_RESOURCE, which the machine of the tests may lack itself
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "-900\n"
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    assert [each[5].split(",")[0] for each in mounts if each[4] == "/usr"] == ["ro"]

    pod = host.add("pod")
    assert not problems([host.send(ask("CHECK", "pod", prevResult=pod.json))])
    host.shell(f"ip link set {host_link('pod')} mtu 1000")
    _until(lambda: "mtu 1500" in host.shell(f"ip link show {host_link('pod')}"), host)
    host.drop("pod")
    assert host.pod_links == set()
    for words in ("Traceback", "not permitted", "Permission denied", "Read-only"):
        assert words not in host.log()


class Beside(Before):
    """Among systemd's processes, with their mounts: the agent's unit sees none that came later."""

    host: BootedHost

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        enter = ["nsenter", "--target", str(self.host.first), "--all", "--"]
        environment = {"PATH": CLEAN_PATH, **env}
        return subprocess.run(
            [*enter, *argv], env=environment, input=stdin, capture_output=True, timeout=timeout
        )

    def make(self, container: str) -> None:
        assert self.host.beside("ip", "netns", "add", container).returncode == 0

    def unmake(self, container: str) -> None:
        assert self.host.beside("ip", "netns", "delete", container).returncode == 0


def test_the_plugins_before_us_can_do_their_part_inside_of_the_unit(host: BootedHost) -> None:
    with before(host, Beside) as former:
        former.add("old", (8080, 80))
        assert "8080" in former.rules()
        host.weft("import")
        assert host.send(ask("DEL", "old")).status == 0
        assert "FormerNotReleased" not in host.weft("get", "events")
        assert "8080" not in former.rules() and "old" not in former.rules()
        assert (former.results(), former.reserved()) == ([], [])
        del former.held["old"]
        former.unmake("old")
        host.weft("delete", "ippool", "former-former-ipv4", "former-former-ipv6")


def test_calls_wait_in_the_socket_for_an_agent_that_was_killed(host: BootedHost) -> None:
    pid, restarts = _agent(host), _restarts(host)
    host.make(["a", "b", "c"])
    os.kill(pid, signal.SIGKILL)
    said = host.storm([ask("ADD", name) for name in "abc"] + [ask("STATUS")], workers=4)
    assert not problems(said), "nobody was refused: the next agent served them"
    assert max(each.seconds for each in said) > RESTART / 2, "they have waited"
    assert _restarts(host) == restarts + 1
    assert host.pod_links == {host_link(name) for name in "abc"}
    for name in "abc":
        host.drop(name)


def test_a_call_starts_a_service_that_was_stopped(host: BootedHost) -> None:
    host.systemctl("stop", "weft.service")
    assert _state(host) == "inactive"
    assert _state(host, "weft.socket") == "active"
    host.add("pod")
    assert _state(host) == "active"
    host.drop("pod")


def test_what_the_kernel_holds_outlives_a_stop_of_both_units(host: BootedHost) -> None:
    host.add("kept")
    before = _table(host)
    assert host_link("kept") in before
    host.systemctl("stop", "weft.socket", "weft.service")
    assert not host.node.path("/run/weft/agent.sock").exists(), "RemoveOnStop="
    assert host.agent_pid() == 0
    assert _table(host) == before
    assert host.pod_links == {host_link("kept")}
    assert host.send(ask("STATUS")).code == 50
    host.systemctl("start", "weft.socket", "weft.service")
    assert not problems([host.send(ask("STATUS"))])
    host.drop("kept")


def test_an_agent_that_is_stopped_is_ended_by_the_watchdog_and_another_serves(
    host: BootedHost,
) -> None:
    pid, restarts = _agent(host), _restarts(host)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    _until(lambda: _restarts(host) > restarts, host)
    assert time.monotonic() - began > WATCHDOG / 2
    assert not problems([host.send(ask("STATUS"))])
    assert host.agent_pid() not in (0, pid)


def _until(happened: Callable[[], bool], host: BootedHost, patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience * SLACK
    while not happened():
        assert time.monotonic() < deadline, host.log()[-3000:]
        time.sleep(0.05)
