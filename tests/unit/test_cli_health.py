"""What status and doctor say of metrics, health and who watches the agent."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from weft.agent.findings import findings_of
from weft.cli import checks_runtime
from weft.cli.machine import Machine, page
from weft.cli.status import status_text
from weft.observe.http import Endpoint, Maker, Page
from weft.wire.api import Finding, IpamCheck
from weft.wire.status import Listener, Status, Watch

WATCHED = Status(
    version="0.2.0",
    node="n",
    ready=True,
    metrics=Listener(address="127.0.0.1:9464"),
    watchdog=Watch(limit=30, supervisor=45),
)


def test_status_shows_the_address_and_who_watches() -> None:
    text = status_text(WATCHED)
    assert "Metrics:      127.0.0.1:9464\n" in text
    assert "Watchdog:     30 s; its supervisor's 45 s\n" in text


@pytest.mark.parametrize(
    ("listener", "shown"), [(Listener(), "off"), (Listener(problem="taken"), "none")]
)
def test_status_shows_that_there_are_no_metrics_and_no_supervisor(
    listener: Listener, shown: str
) -> None:
    found = Status(
        version="0.2.0", node="n", ready=True, metrics=listener, watchdog=Watch(limit=30)
    )
    assert f"Metrics:      {shown}\n" in status_text(found)
    assert "no supervisor watches it" in status_text(found)


def test_an_older_agent_says_nothing_of_it() -> None:
    older = Status(version="0.1.0", node="n", ready=True)
    assert "Watchdog" not in status_text(older)
    assert "watchdog" not in {each.id for each in findings_of(older, IpamCheck())}


@pytest.mark.parametrize(("supervisor", "level"), [(45, "ok"), (0, "warn")])
def test_doctor_says_when_nobody_would_start_the_agent_again(supervisor: float, level: str) -> None:
    found = Status(
        version="0.2.0", node="n", ready=True, watchdog=Watch(limit=30, supervisor=supervisor)
    )
    (finding,) = [each for each in findings_of(found, IpamCheck()) if each.id == "watchdog"]
    assert finding.level == level


def judged(tmp_path: Path, answer: tuple[int, str] | OSError) -> list[Finding]:
    def ask(address: str, path: str) -> tuple[int, str]:
        assert (address, path) == ("127.0.0.1:9464", "/healthz")
        if isinstance(answer, OSError):
            raise answer
        return answer

    return list(checks_runtime.health(Machine(tmp_path, status=WATCHED, page=ask)))


def test_doctor_asks_the_health_page(tmp_path: Path) -> None:
    assert [each.level for each in judged(tmp_path, (200, "ok"))] == ["ok"]
    (stuck,) = judged(tmp_path, (503, "the loop has not turned for 9 s"))
    assert (stuck.level, "9 s" in stuck.text) == ("bad", True)
    (deaf,) = judged(tmp_path, OSError("timed out"))
    assert (deaf.level, "timed out" in deaf.text) == ("warn", True)
    off = Machine(tmp_path, status=Status(version="0.2.0", node="n", ready=True))
    assert list(checks_runtime.health(off)) == []


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_page_is_read_over_tcp_and_a_unix_socket(tmp_path: Path, family: str) -> None:
    if family == "tcp":
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        address = f"unix:{tmp_path / 's'}"
    endpoint = Endpoint({"/a": Maker(lambda accept: Page(503, b"so\n"), slow=False)}, lambda: sock)
    endpoint.start()
    try:
        assert page(address, "/a") == (503, "so")
    finally:
        endpoint.stop()


def test_what_speaks_no_http_is_said_to(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="no HTTP"):
            page(f"127.0.0.1:{other.getsockname()[1]}", "/a")
        thread.join(10)
    with pytest.raises(OSError, match="none of"):
        page("nonsense", "/a")
