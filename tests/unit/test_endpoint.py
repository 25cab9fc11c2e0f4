"""The small HTTP server: what it answers, and what it does not let others do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from weft.observe import http
from weft.observe.http import Endpoint, Maker, Page


def bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def serving(**pages: Maker) -> Iterator[int]:
    """The port of an endpoint with these pages."""
    sock = bound()
    endpoint = Endpoint({f"/{name}": maker for name, maker in pages.items()}, lambda: sock)
    endpoint.start()
    try:
        yield sock.getsockname()[1]
    finally:
        endpoint.stop()


def quick(status: int = 200, body: bytes = b"well\n") -> Maker:
    return Maker(lambda accept: Page(status, body), slow=False)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def everything(peer: socket.socket) -> bytes:
    found = b""
    while part := peer.recv(65536):
        found += part
    return found


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body; 0 where the connection ended without an answer."""
    with closing(connect(port)) as peer:
        peer.sendall(request)
        try:
            said = everything(peer)
        except ConnectionResetError:
            return 0, b""
    head, _, body = said.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


GET = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"


def test_a_page_is_given_with_its_length_and_the_connection_closed() -> None:
    with serving(health=quick()) as port, closing(connect(port)) as peer:
        peer.sendall(GET)
        said = everything(peer).decode()
    assert said.startswith("HTTP/1.1 200 OK\r\n")
    assert "\r\nContent-Length: 5\r\n" in said
    assert "\r\nConnection: close\r\n" in said
    assert said.endswith("\r\n\r\nwell\n")


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /health?a=b HTTP/1.0\r\n\r\n", 200, b"well\n"),
        (b"HEAD /health HTTP/1.1\r\n\r\n", 200, b""),
        (b"POST /health HTTP/1.1\r\n\r\n", 405, b"only GET and HEAD\n"),
        (b"GET /other HTTP/1.1\r\n\r\n", 404, None),
        (b"GET health HTTP/1.1\r\n\r\n", 400, None),
        (b"GET /health\r\n\r\n", 400, None),
        (b"GET /health SMTP/1.1\r\n\r\n", 400, None),
        (b"\x16\x03\x01\x02\r\n\r\n", 400, None),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 431, None),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n", 431, None),
    ],
)
def test_what_is_asked_gets_its_status(request_: bytes, status: int, body: bytes | None) -> None:
    with serving(health=quick()) as port:
        found, said = ask(port, request_)
    assert found == status
    assert body is None or said == body


def test_a_page_that_fails_is_an_answer_too() -> None:
    def fail(accept: str) -> Page:
        raise ValueError("of no value")

    for slow in (False, True):
        with serving(health=Maker(fail, slow)) as port:
            assert ask(port, GET) == (500, b"ValueError: of no value\n")


def test_a_slow_page_holds_up_no_other_and_is_made_once_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going = threading.Event()
    made: list[str] = []

    def slow(accept: str) -> Page:
        made.append(accept)
        going.wait(10)
        return Page(200, b"at last\n")

    monkeypatch.setattr(http, "PAGE_TIME", 0.3)
    with serving(health=quick(), slow=Maker(slow, slow=True)) as port:
        peers = [connect(port) for _ in range(5)]
        for peer in peers:
            peer.sendall(GET.replace(b"health", b"slow"))
        assert ask(port, GET)[0] == 200
        assert [everything(peer).split()[1] for peer in peers] == [b"503"] * 5
        assert made == [""]
        going.set()
        deadline = time.monotonic() + 10
        while ask(port, GET.replace(b"health", b"slow"))[0] != 200:
            assert time.monotonic() < deadline
        for peer in peers:
            peer.close()


def test_who_sends_no_whole_request_in_time_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEADER_TIME", 0.2)
    with serving(health=quick()) as port, closing(connect(port)) as peer:
        peer.sendall(b"GET /health HTTP/1.1\r\n")
        began = time.monotonic()
        assert everything(peer) == b""
        assert time.monotonic() - began < 5


def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WRITE_TIME", 0.2)
    body = b"x" * (32 << 20)
    with serving(health=quick(body=body)) as port, closing(connect(port)) as peer:
        peer.sendall(GET)
        peer.recv(1)
        time.sleep(0.5)  # longer than it is waited for
        # what the kernel had taken still comes
        assert len(everything(peer)) < len(body)


def test_slow_peers_make_room_for_new_ones() -> None:
    with serving(health=quick()) as port:
        idle = [connect(port) for _ in range(3 * http.CONNECTIONS)]
        try:
            assert ask(port, GET)[0] == 200
        finally:
            for peer in idle:
                peer.close()


def test_a_socket_that_cannot_be_had_is_asked_for_again() -> None:
    free = threading.Event()
    made = bound()

    def bind() -> socket.socket:
        if not free.is_set():
            raise OSError("the port is taken")
        return made

    endpoint = Endpoint({"/health": quick()}, bind, retry=0.05)
    endpoint.start()
    assert endpoint.problem == "the port is taken"
    free.set()
    deadline = time.monotonic() + 10
    while endpoint.problem and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        assert ask(made.getsockname()[1], GET)[0] == 200
    finally:
        endpoint.stop()


def test_an_endpoint_without_a_socket_stops_all_the_same() -> None:
    def bind() -> socket.socket:
        raise OSError("the port is taken")

    endpoint = Endpoint({}, bind)
    endpoint.start()
    began = time.monotonic()
    endpoint.stop()
    endpoint.stop()
    assert time.monotonic() - began < 2
