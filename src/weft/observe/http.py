"""A small HTTP server in a thread of its own, for pages that a machine asks for.

It has its own event loop, so that it answers while the agent's is stuck; pages that may take long
run in threads beside it, each at most once at a time, and who asks for a page that is being made
gets the same one. Bounded: GET and HEAD, one request a connection, so much header in so much
time, so many connections - when there is no room, who has been slow for longest makes it.
http.server would take a thread a connection and wait for ever on slow ones.
A socket that cannot be had is asked for again later; `problem` says why meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

HEADER_LIMIT = 8192  # octets of a request's line and headers
HEADER_TIME = 5.0  # seconds in which they must have come
PAGE_TIME = 5.0  # seconds that a page may take to be made
WRITE_TIME = 10.0  # seconds in which the answer must have been taken
CONNECTIONS = 32
BACKLOG = 64
RETRY = 10.0  # seconds until a socket that could not be had is asked for again
WORDS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PLAIN = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    kind: str = PLAIN


class Maker(NamedTuple):
    """How a page is made, from the request's Accept header. `slow`: in a thread of its own."""

    make: Callable[[str], Page]
    slow: bool


class _Request(NamedTuple):
    method: str
    path: str
    accept: str


class Endpoint:
    """Serves `pages` by path. `start` and `stop` are called by another thread than its own."""

    def __init__(
        self, pages: Mapping[str, Maker], bind: Callable[[], socket.socket], retry: float = RETRY
    ) -> None:
        """`bind` makes the bound socket, or raises OSError or WeftError."""
        self._pages = pages
        self._bind = bind
        self._retry = retry
        self._open: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._making: dict[tuple[str, str], asyncio.Future[Page]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why nobody can be answered now; "" while the socket is there."""

    def start(self) -> None:
        """Bind, or say why not, and serve from now on."""
        sock = self._try_bind()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, sock), name="weft-http", daemon=True
        )
        self._thread.start()

    def stop(self, patience: float = 2.0) -> None:
        """Close the socket and all connections. A second call does nothing."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None or self._ended is None:
            return
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(patience)

    def _try_bind(self) -> socket.socket | None:
        try:
            sock = self._bind()
            sock.setblocking(False)
            sock.listen(BACKLOG)  # who asks from now on waits, and is not refused
        except Exception as error:  # whatever it is, the agent goes on without
            self.problem = str(error) or type(error).__name__
            return None
        self.problem = ""
        return sock

    def _run(self, loop: asyncio.AbstractEventLoop, sock: socket.socket | None) -> None:
        try:
            loop.run_until_complete(self._serve(sock))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _serve(self, sock: socket.socket | None) -> None:
        ended = self._ended
        assert ended is not None
        while sock is None and not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self._retry)
            if not ended.is_set():
                sock = self._try_bind()
        if sock is None:
            return
        server = await asyncio.start_server(
            self._connected, sock=sock, limit=HEADER_LIMIT, backlog=BACKLOG
        )
        await ended.wait()
        server.close()
        for writer in list(self._open):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            next(iter(self._open)).transport.abort()
        self._open[writer] = None
        try:
            async with asyncio.timeout(HEADER_TIME):
                request = await _read(reader)
            page = request if isinstance(request, Page) else await self._page(request)
            whole = isinstance(request, Page) or request.method != "HEAD"
            writer.write(_encoded(page, whole))
            async with asyncio.timeout(WRITE_TIME):
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, EOFError):
            pass  # too slow, or gone
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _page(self, request: _Request) -> Page:
        maker = self._pages.get(request.path)
        if maker is None:
            listed = " ".join(self._pages)
            return Page(404, f"there is nothing at this path; there is {listed}\n".encode())
        if request.method not in ("GET", "HEAD"):
            return Page(405, b"only GET and HEAD\n")
        if not maker.slow:
            return _made(maker, request.accept)
        key = request.path, request.accept
        making = self._making.get(key)
        if making is None:
            if len(self._making) >= 2 * len(self._pages):
                return Page(503, b"busy with other requests\n")
            making = self._making[key] = self._in_thread(maker, key)
        try:
            async with asyncio.timeout(PAGE_TIME):
                return await asyncio.shield(making)
        except TimeoutError:
            return Page(503, b"this page could not be made in time\n")

    def _in_thread(self, maker: Maker, key: tuple[str, str]) -> asyncio.Future[Page]:
        """The page, made in a daemon thread: one that hangs in the kernel holds up nobody, not
        even the end of the process."""
        loop = asyncio.get_running_loop()
        making: asyncio.Future[Page] = loop.create_future()

        def done(page: Page) -> None:
            self._making.pop(key, None)
            if not making.done():
                making.set_result(page)

        def work() -> None:
            page = _made(maker, key[1])
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(done, page)

        threading.Thread(target=work, name="weft-page", daemon=True).start()
        return making


async def _read(reader: asyncio.StreamReader) -> _Request | Page:
    """One request, or the page that refuses it. Raises EOFError where the peer has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return Page(431, f"a request may have {HEADER_LIMIT} octets\n".encode())
    line, *headers = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[1].startswith("/") or not words[2].startswith("HTTP/1."):
        return Page(400, b"this is no request of HTTP/1\n")
    accept = ""
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "accept":
            accept = value.strip()[:256]
    return _Request(words[0], words[1].partition("?")[0], accept)


def _made(maker: Maker, accept: str) -> Page:
    try:
        return maker.make(accept)
    except Exception as error:  # a fault of ours: who asks must not wait for a time-out
        return Page(500, f"{type(error).__name__}: {error}\n".encode())


def _encoded(page: Page, whole: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if page.status == 405 else ""
    head = (
        f"HTTP/1.1 {page.status} {WORDS[page.status]}\r\n"
        f"Content-Type: {page.kind}\r\nContent-Length: {len(page.body)}\r\n"
        f"Cache-Control: no-store\r\nConnection: close\r\n{allow}\r\n"
    )
    return head.encode("latin-1") + (page.body if whole else b"")
