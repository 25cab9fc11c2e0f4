"""What a service manager gives: taken only where it is meant for us, and checked."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from weft.agent import supervision
from weft.agent.events import Log
from weft.agent.supervision import Supervision
from weft.model.errors import WeftError

LOG = Log("error")
ME = str(os.getpid())


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory, "agent.sock")


def listening(path: Path, mode: int = 0o600) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen()
    return sock


def passing(
    monkeypatch: pytest.MonkeyPatch, sock: socket.socket, names: str | None = "agent"
) -> Supervision:
    """As if the socket had been passed as the first descriptor."""
    number = os.dup(sock.fileno())
    sock.close()
    monkeypatch.setattr(supervision, "FIRST_DESCRIPTOR", number)
    environment = {"LISTEN_PID": ME, "LISTEN_FDS": "1"}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    found = Supervision(environment)
    assert environment == {}, "nothing is left for children"
    return found


@pytest.mark.parametrize("names", ["agent", "weft.socket", "unknown", None])
def test_a_socket_that_listens_on_our_path_is_taken(
    monkeypatch: pytest.MonkeyPatch, place: Path, names: str | None
) -> None:
    found = passing(monkeypatch, listening(place), names)
    assert found.passes_sockets
    taken = found.listening(place, LOG)
    assert taken is not None
    assert taken.getsockname() == str(place)
    assert not taken.get_inheritable()
    taken.close()


def test_a_socket_of_another_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    assert passing(monkeypatch, listening(place), "web").listening(place, LOG) is None


def test_what_is_meant_for_another_process_is_not_taken() -> None:
    environment = {
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "1",
    }
    found = Supervision(environment)
    assert not found.passes_sockets
    assert found.watchdog == 0
    assert environment == {}


@pytest.mark.parametrize("count", ["", "x", "-1", "²", "0"])
def test_a_count_that_is_none_means_nothing(count: str) -> None:
    assert not Supervision({"LISTEN_PID": ME, "LISTEN_FDS": count}).passes_sockets


def refusal(monkeypatch: pytest.MonkeyPatch, sock: socket.socket, path: Path) -> str:
    with pytest.raises(WeftError) as caught:
        passing(monkeypatch, sock).listening(path, LOG)
    assert "weft.socket" in caught.value.message
    return caught.value.message


def test_a_socket_on_another_path_is_refused(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    other = place.with_name("other.sock")
    said = refusal(monkeypatch, listening(place), other)
    assert f"{place}" in said and f"{other}" in said


def test_a_socket_that_others_can_connect_to_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    assert "SocketMode=0600" in refusal(monkeypatch, listening(place, 0o660), place)


def test_a_socket_that_does_not_listen_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(place))
    assert "does not listen" in refusal(monkeypatch, sock, place)


def test_a_socket_of_another_family_or_type_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    for sock in (socket.socket(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
        assert "unix" in refusal(monkeypatch, sock, place)


def test_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    number = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(supervision, "FIRST_DESCRIPTOR", number)
    found = Supervision({"LISTEN_PID": ME, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "agent"})
    with pytest.raises(WeftError) as caught:
        found.listening(place, LOG)
    assert "no socket" in caught.value.message
    os.close(number)


def test_a_supervisor_that_cannot_hear_is_no_failure() -> None:
    for environment in ({"NOTIFY_SOCKET": "/nonexistent/x"}, {"NOTIFY_SOCKET": "x"}, {}):
        found = Supervision(environment)
        found.notify("READY=1")
        found.close()


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("")
        ear.settimeout(5)
        name = ear.getsockname().decode().replace("\0", "@")
        found = Supervision({"NOTIFY_SOCKET": name})
        found.notify("READY=1", "STATUS=well")
        found.close()
        assert ear.recv(100) == b"READY=1\nSTATUS=well"
