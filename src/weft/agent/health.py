"""How the agent is, for who asks from outside, and for who would start it again.

Wires the loop's beat, the watchdog's thread and the HTTP endpoint's to the agent. Verdicts: alive
means that the loop turns; ready means that ADD can be served, and everything that stands in the
way is named. Next: `agent.watchdog`, `agent.measures`, `observe.http`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from weft.agent.measures import Measures, standing
from weft.agent.supervision import Supervision
from weft.agent.watchdog import STUCK, Beat, Watchdog
from weft.kernel import files
from weft.model.errors import Conflict
from weft.model.listening import Listening, Tcp, Unix, read_listening
from weft.observe.exposition import Exposition
from weft.observe.http import Endpoint, Maker, Page
from weft.wire.status import Listener, Start, Why

if TYPE_CHECKING:
    from weft.agent.service import Service

T = TypeVar("T")
PATIENCE = 2.0  # seconds in which the loop must answer a question


class Health:
    """One agent's."""

    def __init__(self, service: Service, supervision: Supervision) -> None:
        self._service = service
        self._supervision = supervision
        self._loop = asyncio.get_running_loop()
        settings = service.settings
        self._where = read_listening(settings.metrics.listen, "metrics.listen")
        self.beat = Beat()
        self.watchdog = Watchdog(self.beat, supervision, settings.watchdog.limit, self._state)
        self._measures = Measures(service, self.beat, self.on_loop)
        self._exposition = Exposition(self._measures.sources)
        self._bound = ""
        self._endpoint: Endpoint | None = None

    def start(self) -> None:
        """The agent has started: from now on it is watched, and answers."""
        engine = self._service.engine
        self._measures.started = Start(
            seconds=round(_age(), 2), standing=standing(engine), written=engine.changes
        )
        self.beat.start()
        self.watchdog.start()
        if self._where is not None:
            pages = {
                "/healthz": Maker(self._alive, slow=False),
                "/readyz": Maker(self._ready, slow=True),
                "/metrics": Maker(self._metrics, slow=True),
            }
            self._endpoint = Endpoint(pages, self._bind)
            self._endpoint.start()
            if self._endpoint.problem:
                self._service.log.event(
                    "warning", "MetricsNotListening", "agent", self._endpoint.problem
                )

    def stop(self) -> None:
        """The agent is stopping: nobody watches, nobody is answered."""
        self.watchdog.stop()
        self.beat.stop()
        if self._endpoint is not None:
            self._endpoint.stop()
        if isinstance(self._where, Unix) and self._bound:
            Path(self._where.path).unlink(missing_ok=True)

    # -- for status -----------------------------------------------------------------------------

    @property
    def listener(self) -> Listener:
        """Where metrics and health are to be had."""
        problem = self._endpoint.problem if self._endpoint is not None else ""
        return Listener(address=self._bound if not problem else "", problem=problem)

    @property
    def started(self) -> Start:
        """What it took to start."""
        return self._measures.started

    @property
    def supervised(self) -> float:
        """Seconds after which a supervisor ends a silent agent; 0: nobody does."""
        return self._supervision.watchdog

    def warnings(self) -> list[Why]:
        """What does not keep pods from their network, and should be looked at."""
        problem = self.listener.problem
        return [Why(reason="metrics-not-listening", message=problem)] if problem else []

    # -- verdicts -------------------------------------------------------------------------------

    def on_loop(self, ask: Callable[[], T]) -> T:
        """The answer of a function that runs on the agent's loop; for other threads. Raises
        TimeoutError when the loop does not come to it."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(ask())
            except Exception as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        try:
            return answer.result(PATIENCE)
        except concurrent.futures.TimeoutError:
            answer.cancel()
            raise

    def _state(self) -> str:
        """For the supervisor's status line."""
        why = self._service.node.not_ready()
        count = len(self._service.attachments)
        return f"not ready: {why}" if why else f"serving; {count} attachments"

    def _stuck(self) -> str:
        silence = self.beat.silence
        return f"the loop has not turned for {silence:.0f} s" if silence > STUCK else ""

    def _alive(self, accept: str) -> Page:
        stuck = self._stuck()
        return Page(503, f"{stuck}\n".encode()) if stuck else Page(200, b"ok\n")

    def _ready(self, accept: str) -> Page:
        if stuck := self._stuck():
            return Page(503, f"{stuck}\n".encode())
        try:
            reasons = self.on_loop(self._service.reporter.reasons)
        except TimeoutError:
            return Page(503, f"the loop gave no answer within {PATIENCE:.0f} s\n".encode())
        if not reasons:
            return Page(200, b"ready\n")
        lines = "".join(f"{each.message} ({each.reason})\n" for each in reasons)
        return Page(503, lines.encode())

    def _metrics(self, accept: str) -> Page:
        body, kind = self._exposition.text(accept)
        return Page(200, body, kind)

    # -- the socket -----------------------------------------------------------------------------

    def _bind(self) -> socket.socket:
        assert self._where is not None
        sock = bind(self._where)
        where = self._where
        if isinstance(where, Tcp):
            where = Tcp(host=where.host, port=sock.getsockname()[1])  # the one for port 0
        self._bound = str(where)
        return sock


def _age() -> float:
    """Seconds since this process began, to a clock tick (proc(5): starttime is field 22)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)


def bind(where: Listening) -> socket.socket:
    """A bound socket. Raises OSError with a sentence, or WeftError."""
    if isinstance(where, Unix):
        return _bind_unix(Path(where.path))
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # the last agent's connections may still be closing (TIME_WAIT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((where.host, where.port))
    except OSError as error:
        sock.close()
        raise OSError(
            f"metrics and health cannot be had on {where}: {error.strerror}; free the port or "
            "set metrics.listen"
        ) from error
    return sock


def _bind_unix(path: Path) -> socket.socket:
    """Bound beside its place, closed to others, then renamed: it appears complete."""
    files.make_directory(path.parent)
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise Conflict(f"metrics.listen: {path} is there and is not a socket; remove it")
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(new))
        os.chmod(new, 0o600)
        new.rename(path)
    except OSError:
        sock.close()
        raise
    return sock
