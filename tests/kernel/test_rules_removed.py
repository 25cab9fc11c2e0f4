"""`weft break-glass` against the kernel: protected tables go, nothing else does, at any moment."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from namespace_fixture import on_a_node

from weft.cli.break_glass import command, keepers, rules
from weft.cli.break_glass.keepers import read_units, role_of
from weft.drivers.engine import Engine
from weft.drivers.rules import Rules, RulesTransport
from weft.drivers.surroundings import Host
from weft.kernel.netlink import Socket
from weft.main import main
from weft.model.errors import KernelRefused
from weft.render.ruleset import NodeRules, node_rows
from weft.rows.rules import Table

FOREIGN = """
table ip weft {
  chain c { type filter hook forward priority 0; counter
  }
}
table netdev weft {
}
table inet weft2 {
  chain c { type filter hook forward priority 0;
  }
}
"""


ALL = ["table inet weft", "table arp weft", "table bridge weft"]


class Ran:
    """One run of the command."""

    def __init__(self, *words: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        before, sys.stdin = sys.stdin, io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                self.status = main(["break-glass", *words])
        finally:
            sys.stdin = before
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def _nft(*words: str, stdin: str = "") -> str:
    done = subprocess.run(["nft", *words], capture_output=True, text=True, input=stdin, check=True)
    return done.stdout


def _tables() -> list[str]:
    return _nft("list", "tables").splitlines()


def _make(*, protected: bool = True) -> RulesTransport:
    """The rules of an agent, which are orphans once the transport is closed."""
    transport = RulesTransport()
    owner = transport.tables.port if protected else None
    plan = NodeRules(pools=(ip_network("10.244.0.0/16"),), owner=owner)
    Engine(Host(transport), [Rules(transport)]).apply("node", node_rows(plan))
    return transport


@contextmanager
def _owner() -> Iterator[int]:
    """A process that owns the tables and does nothing, not even end when it is asked to."""
    ready, telling = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kept = _make()
        os.write(telling, b"x")
        while kept is not None:
            signal.pause()
    os.read(ready, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@on_a_node
@pytest.mark.parametrize("protected", [False, True])
def test_what_a_dead_agent_left_goes_and_nothing_else_does(protected: bool) -> None:
    _make(protected=protected).close()
    _nft("-f", "-", stdin=FOREIGN)
    first = Ran("--yes", "-o", "json")
    assert first.status == 0, first.err
    assert first.json["outcome"] == "removed"
    assert {(t["family"], t["persists"], t["holder"]) for t in first.json["tables"]} == {
        ("inet", protected, None),
        ("arp", protected, None),
        ("bridge", protected, None),
    }
    assert [min(t["contents"][:3]) > 0 for t in first.json["tables"]] == [True, True, True]
    assert _tables() == ["table ip weft", "table netdev weft", "table inet weft2"]
    again = Ran("--yes", "-o", "json")
    assert (again.status, again.json["outcome"]) == (0, "nothing")


@on_a_node
def test_looking_changes_nothing_and_nothing_happens_unasked() -> None:
    _make().close()
    before = _nft("list", "ruleset")
    planned = Ran("--dry-run", "-o", "json")
    assert (planned.status, planned.json["outcome"]) == (0, "planned")
    unasked = Ran()
    assert unasked.status == 2
    assert "--yes" in unasked.err
    assert _nft("list", "ruleset") == before


@on_a_node
def test_the_owner_of_the_tables_is_named_and_only_force_ends_it() -> None:
    keepers.END_WITHIN = 0.1
    with _owner() as pid:
        refused = Ran("--yes")
        assert refused.status == 1
        assert f"owner of the tables {pid}" in refused.err
        assert f"kill {pid}" in refused.err
        assert "weft explain agent-alive" in refused.err
        assert _tables() == ALL
        os.kill(pid, signal.SIGSTOP)  # a stuck one is ended as well
        forced = Ran("--yes", "--force", "-o", "json")
        assert forced.status == 0, forced.err
        assert forced.json["outcome"] == "removed"
        assert forced.json["done"] == [f"killed owner of the tables {pid}"]
    assert _tables() == []


@on_a_node
def test_an_owner_that_comes_meanwhile_keeps_all_of_its_tables() -> None:
    kept = _make()
    with pytest.raises(rules.WeftError, match=r"nothing was removed: .* belongs to process"):
        rules.remove()
    assert _tables() == ALL
    one = next(row for row in kept.standing("weft") if isinstance(row, Table))
    assert one.owner == kept.tables.port


@on_a_node
def test_what_the_kernel_puts_off_is_tried_again_a_bounded_number_of_times() -> None:
    _make().close()
    send, refused = Socket.send, 0

    def crowded(self: Socket, messages: Sequence[bytes], *, quiet: bool = False) -> int:
        nonlocal refused
        if len(messages) > 2 and refused < 5:  # a transaction, not a question
            refused += 1
            raise OSError(errno.ENOBUFS, "no room")
        return send(self, messages, quiet=quiet)

    Socket.send = crowded  # type: ignore[method-assign]
    rules.remove()
    assert (_tables(), refused) == ([], 5)
    _make().close()
    rules.TRIES, refused = 2, -100
    with pytest.raises(KernelRefused, match="ENOBUFS"):
        rules.remove()
    Socket.send = send  # type: ignore[method-assign]
    assert _tables() == ALL


@on_a_node
def test_contents_that_cannot_be_read_keep_nobody_from_removing_them() -> None:
    _make().close()

    def broken(self: RulesTransport, name: str) -> list[Any]:
        raise ValueError("a rule of another release")

    RulesTransport.standing = broken  # type: ignore[method-assign]
    ran = Ran("--yes", "-o", "json")
    assert ran.status == 0, ran.err
    assert [t["contents"] for t in ran.json["tables"]] == [None, None, None]
    assert _tables() == []


@on_a_node
def test_a_listener_whose_process_is_not_seen_is_warned_of_and_not_called() -> None:
    with TemporaryDirectory() as place:
        command.SOCKET = str(Path(place, "agent.sock"))
        assert Ran("--dry-run", "-o", "json").json["warnings"] == []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(command.SOCKET)
            assert Ran("--dry-run", "-o", "json").json["warnings"] == [], "it does not listen yet"
            listener.listen()
            listener.setblocking(False)
            (warning,) = Ran("--dry-run", "-o", "json").json["warnings"]
            assert command.SOCKET in warning
            with pytest.raises(BlockingIOError):
                listener.accept()


def _systemctl(place: Path, answer: str) -> Path:
    """A systemctl that writes down what it was asked; where it goes wrong is in `answer`."""
    program = place / "systemctl"
    asked = place / "asked"
    asked.write_text("")
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{answer}\n')
    program.chmod(0o755)
    keepers.SYSTEMD = place
    os.environ["PATH"] = f"{place}:{os.environ['PATH']}"
    return asked


@on_a_node
def test_a_systemd_that_does_not_answer_keeps_nobody_from_removing_them() -> None:
    _make().close()
    with TemporaryDirectory() as place:
        _systemctl(Path(place), "echo 'Failed to connect to bus' >&2; exit 1")
        ran = Ran("--yes", "-o", "json")
        assert ran.status == 0, ran.err
        assert ran.json["warnings"] == ["systemd could not be asked: Failed to connect to bus"]
        assert _tables() == []
        _make().close()
        _systemctl(Path(place), "sleep 60")
        keepers.ASK_LIMIT = 0.1
        assert Ran("--yes").status == 0
        assert _tables() == []


@on_a_node
def test_units_are_stopped_socket_and_service_together_and_only_by_force() -> None:
    """The socket alone would start the service again, and the service the socket."""
    _make().close()
    with TemporaryDirectory() as place:
        stopped = Path(place, "stopped")
        asked = _systemctl(
            Path(place),
            f'[ "$1" = stop ] && touch {stopped} && exit\n'
            f"[ -e {stopped} ] && state=inactive || state=active\n"
            "for unit in weft.socket weft.service; do\n"
            'echo "Id=$unit\nLoadState=loaded\nActiveState=$state\nUnitFileState=enabled\n"\n'
            "done",
        )
        refused = Ran("--yes")
        assert refused.status == 1
        assert "`systemctl stop weft.socket weft.service`" in refused.err
        assert _tables() == ALL
        assert "stop" not in asked.read_text()
        forced = Ran("--yes", "--force", "-o", "json")
        assert forced.status == 0, forced.err
        assert forced.json["done"] == ["systemctl stop weft.socket weft.service"]
        assert asked.read_text().count("stop weft.socket weft.service\n") == 1
        assert forced.json["warnings"] == [
            "started at boot, which loads rules again: systemctl disable weft.socket weft.service"
        ]
    assert _tables() == []


def _attach(link: str) -> None:
    for words in (
        ["add", link, "type", "veth", "peer", "name", "p" + link[2:]],
        ["set", link, "alias", "weft:1 x", "up"],
    ):
        subprocess.run(["ip", "link", *words], check=True)


def _up() -> list[str]:
    shown = subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout
    return sorted(link["ifname"] for link in json.loads(shown) if "UP" in link["flags"])


@on_a_node
def test_pods_are_shut_before_their_guards_go() -> None:
    _make().close()
    _attach("wfaaaaaaaaaaaaa")
    subprocess.run(["ip", "link", "add", "wfforeign", "up", "type", "bridge"], check=True)
    kept = Ran("--dry-run")
    assert "1 attachments of pods: keep their links, without guards" in kept.err
    ran = Ran("--close-pods", "--yes", "-o", "json")
    assert ran.status == 0, ran.err
    assert ran.json["shut"] == ["wfaaaaaaaaaaaaa"]
    assert _up() == ["wfforeign"]
    assert _tables() == []


def _dying(at: int) -> Callable[..., int]:
    """`Socket.send` in a process that is killed just before (even) or after (odd) the n-th."""
    send, sent = Socket.send, 0

    def counted(self: Socket, messages: Sequence[bytes], *, quiet: bool = False) -> int:
        nonlocal sent
        if sent == at:
            os.kill(os.getpid(), signal.SIGKILL)
        first = send(self, messages, quiet=quiet)
        if sent + 1 == at:
            os.kill(os.getpid(), signal.SIGKILL)
        sent += 2
        return first

    return counted


@on_a_node
def test_killed_at_any_moment_it_leaves_all_tables_or_none_and_can_be_run_again() -> None:
    """Pods' links are down by the time the tables are gone, whenever it was killed."""
    _attach("wfaaaaaaaaaaaaa")
    at, left = 0, set()
    while True:
        _make().close()
        subprocess.run(["ip", "link", "set", "wfaaaaaaaaaaaaa", "up"], check=True)
        child = os.fork()
        if child == 0:
            Socket.send = _dying(at)  # type: ignore[method-assign]
            rules.shut_links()
            rules.remove()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        standing = _tables()
        assert standing in ([], ALL), f"killed at {at}"
        assert standing or _up() == [], f"killed at {at}: an unguarded pod"
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        left.add(len(standing))
        rules.shut_links()
        rules.remove()
        assert (_tables(), _up()) == ([], [])
        at += 1
    assert at >= 10
    assert left == {0, len(ALL)}, "it was killed before and after the transaction"


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("/usr/local/bin/weft agent", "agent"),
        ("/opt/weft/bin/python3 /opt/weft/bin/weft agent --config /etc/weft/weft.yaml", "agent"),
        ("python3.11 -I -m weft.main agent", "agent"),
        ("python3 -IS /usr/bin/weft-supervise /run/weft/p /bin/weft agent", "supervisor"),
        ("/bin/weft-supervise /run/weft/p /bin/weft agent", "supervisor"),
        ("grep weft agent", None),
        ("/usr/local/bin/weft status", None),
        ("vim agent", None),
        ("python3", None),
        ("", None),
    ],
)
def test_agents_are_known_by_what_they_execute(line: str, role: str | None) -> None:
    assert role_of(line.split()) == role


def test_units_that_run_or_listen_are_in_the_way_and_those_of_the_boot_are_named() -> None:
    said = (
        "Id=weft-boot.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\n"
        "Id=weft.socket\nLoadState=loaded\nActiveState=active\nUnitFileState=disabled\n\n"
        "Id=weft.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"
    )
    found = keepers.Keepers(units=tuple(read_units(said)))
    assert list(found.running()) == ["weft.socket"]
    assert found.living
    assert found.at_boot() == ["weft-boot.service"]
    resting = keepers.Keepers(units=tuple(read_units(said.replace("=active", "=failed"))))
    assert not resting.living
