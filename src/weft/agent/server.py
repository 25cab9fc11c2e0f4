"""The agent's unix sockets: launchers and the command line, one protocol.

Each connection carries one request. The loop's own readers are used instead of streams, because a
launcher passes a descriptor of the container's namespace beside its bytes (SCM_RIGHTS), and because
accept, read, work and answer then happen in one turn of the loop. Who may connect, and how much
room a peer has, is the door's to say (`agent.doors`). Next: `agent.verbs` for CNI requests,
`agent.api` for the command line's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from weft.agent.doors import Door, RootDoor
from weft.agent.events import Log
from weft.model.errors import PeerFault, WeftError
from weft.wire.local import Frame, Frames, OtherVersion
from weft.wire.refusal import refusal

BACKLOG = 4096
ACCEPT_TIME = 0.003  # seconds after which others get their turn: an ADD may be done in `start`
READ_SIZE = 1 << 16
CONNECTION_LIMIT = 4000
SPARE = 64  # descriptors that connections leave to files, netlink sockets and workers

Handler = Callable[["Connection", Frame, int | None], Awaitable[None] | None]


class Connection:
    """One peer. `gone` is set when it closes before it was answered; `group` names the group by
    which it was let in, "" for root."""

    def __init__(self, server: Server, sock: socket.socket, uid: int, group: str = "") -> None:
        self._server = server
        self._socket = sock
        self._room = server.door.room
        self._frames = Frames(limit=self._room.request)
        self._descriptor: int | None = None
        self._outgoing = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.uid = uid
        self.group = group
        self.gone = asyncio.Event()
        self._closed = False
        self._answered = False
        self._writing = False
        self._asked = False

    def start(self) -> None:
        """Begin to read; the request must be whole within the door's limit."""
        self._timer = self._server.loop.call_later(self._room.idle, self._idle)
        self._server.loop.add_reader(self._socket.fileno(), self._readable)
        self._readable()

    def _idle(self) -> None:
        if not self._asked:
            self.close()

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, READ_SIZE, 4, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._hung_up()
            return
        self._keep_one(descriptors)
        if not data:
            self._hung_up()
            return
        if self._asked:
            return  # one request a connection; what follows is ignored
        try:
            frames = self._frames.feed(data)
        except PeerFault as error:
            self._server.log.line("warning", "a peer broke the protocol", error=error.message)
            if isinstance(error, OtherVersion):
                # in our version: who is one release ahead reads it
                self._asked = True
                self.send(refusal(error))
            self.close()
            return
        for frame in frames:
            self._asked = True
            taken, self._descriptor = self._descriptor, None
            self._server.dispatch(self, frame, taken)
            return

    def _keep_one(self, descriptors: Iterable[int]) -> None:
        """The first descriptor of a request is the container's namespace; others go at once, so
        that no peer can fill the agent's table."""
        for descriptor in descriptors:
            if self._room.takes_descriptors and self._descriptor is None and not self._asked:
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def _hung_up(self) -> None:
        self.gone.set()
        self.close()

    def still_there(self) -> bool:
        """Whether the peer has not closed; asked before the first effect and before the answer."""
        if self._closed:
            return False
        try:
            if self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                self._hung_up()
                return False
        except BlockingIOError:
            return True
        except OSError:
            self._hung_up()
            return False
        return True

    def send(self, data: bytes, *, last: bool = True) -> bool:
        """Send one frame; False if the peer is gone. `last` closes when all is out."""
        if self._closed:
            return False
        self._answered = self._answered or last
        self._outgoing += data
        return self._flush()

    def _flush(self) -> bool:
        descriptor = self._socket.fileno()
        moved = False
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing)
                del self._outgoing[:sent]
                moved = True
        except BlockingIOError:
            self._expect_reading(moved)
            self._writing = True
            self._server.loop.add_writer(descriptor, self._flush)
            return True
        except OSError:
            self._hung_up()
            return False
        if self._writing:
            self._writing = False
            self._server.loop.remove_writer(descriptor)
            self._expect_nothing()
        if self._answered:
            self.close()
        return True

    def _expect_reading(self, moved: bool) -> None:
        """Close when the peer takes nothing for too long: what it was told costs memory."""
        if not (self._answered or self._room.stall_streams) or (self._writing and not moved):
            return
        self._expect_nothing()
        self._timer = self._server.loop.call_later(self._room.stall, self._hung_up)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def pending(self) -> int:
        """Octets that were given to `send` and are not out yet."""
        return len(self._outgoing)

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.gone.set()
        self._expect_nothing()
        descriptor = self._socket.fileno()
        self._server.loop.remove_reader(descriptor)
        self._server.loop.remove_writer(descriptor)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._socket.close()
        self._server.connections.discard(self)


class Server:
    """The listening socket. `listen` binds, `serve` begins to accept: what connects in between
    waits, which is when the queue of deletions is drained."""

    def __init__(self, path: Path, handler: Handler, log: Log, door: Door | None = None) -> None:
        self.path = path
        self.log = log
        self.door = door or RootDoor()
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._limit = self.door.room.connections or connection_limit()
        self._handler = handler
        self._socket: socket.socket | None = None
        self._is_passed = False
        self._place: tuple[int, int] | None = None  # device and inode of the socket's file
        self.trouble = ""  # why nobody can connect, for a person; "" while all is well
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, passed: socket.socket | None = None) -> None:
        """Bind the socket, or take the one that a service manager `passed`, which stays its own.
        Raises WeftError if another agent answers on it."""
        if passed is not None:
            passed.setblocking(False)
            self._socket, self._is_passed = passed, True
            self._place = _place(self.path)
            return
        self.door.prepare(self.path)
        self._clear_stale()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.door.bind(sock, self.path)
        sock.listen(BACKLOG)
        self._socket = sock
        self._place = _place(self.path)

    def look(self) -> None:
        """Whether the socket is still in its place. One that somebody has removed is made again; a
        service manager's is its own to make. What stands in the way is `trouble`, and an event."""
        if self._socket is None or _place(self.path) == self._place:
            self.trouble = ""
            return
        before, self._socket = self._socket, None
        words = f"the socket {self.path} was removed or replaced while the agent ran"
        try:
            if self._is_passed:
                raise WeftError("restart weft.socket and weft.service")
            self.listen()
        except (WeftError, OSError) as error:
            self._socket = before
            self._tell(f"{words}, and nobody can connect: {error}")
            return
        self.log.event("warning", "SocketRenewed", "agent", f"{words}; it was made again")
        self.trouble = ""
        self.loop.remove_reader(before.fileno())
        self.serve()
        with suppress(OSError):  # who had connected before is served
            while True:
                waiting, _ = before.accept()
                waiting.setblocking(False)
                self._welcome(waiting)
        before.close()

    def _tell(self, words: str) -> None:
        if words != self.trouble:
            self.trouble = words
            self.log.event("error", "SocketLost", "agent", words)

    def _clear_stale(self) -> None:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise WeftError(f"{self.path} is not a socket; remove it and start again")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.path))
            except TimeoutError:
                raise WeftError(
                    f"what listens on {self.path} takes no connection; stop it first"
                ) from None
            except OSError as error:
                if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                    raise
            else:
                raise WeftError(f"another agent is listening on {self.path}; stop it first")
        os.unlink(self.path)

    def serve(self) -> None:
        """Begin to accept."""
        if self._socket is None:
            raise RuntimeError("listen() comes first")
        self.loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        begun = self.loop.time()
        admitted = 0
        while admitted < self.door.room.at_once and self.loop.time() - begun < ACCEPT_TIME:
            if len(self.connections) >= self._limit:
                self._pause()
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS: later, when others have closed
                self.log.line("warning", "cannot accept", error=str(error))
                self._pause()
                return
            sock.setblocking(False)
            admitted += self._welcome(sock)
        if self.door.room.breath:
            self._pause(self.door.room.breath)

    def _welcome(self, sock: socket.socket) -> bool:
        guest = self.door.admit(sock, (each.uid for each in self.connections))
        if guest.refused:
            with suppress(OSError):  # gone already, or it does not read
                sock.send(guest.refusal)
            sock.close()
            return False
        connection = Connection(self, sock, guest.uid, guest.group)
        self.connections.add(connection)
        connection.start()
        return True

    def _pause(self, seconds: float = 0.05) -> None:
        """Accept again a little later; who connects meanwhile waits in the backlog."""
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            self.serve()

    def dispatch(self, connection: Connection, frame: Frame, descriptor: int | None) -> None:
        """Hand a request to its handler; what it leaves to wait for becomes a task."""
        try:
            waiting = self._handler(connection, frame, descriptor)
        except Exception as error:  # a fault of ours: the peer must not wait for its time-out
            self.log.line("error", "a request failed", error=repr(error))
            connection.close()
            return
        if waiting is None:
            return
        task = self.loop.create_task(_awaited(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.line("error", "a request failed", error=repr(error))

    async def stop(self, patience: float = 5.0) -> None:
        """Accept no more, let the running requests end, give the socket back."""
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            if not self._is_passed:
                self.path.unlink(missing_ok=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for connection in list(self.connections):
            connection.close()


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _awaited(waiting: Awaitable[None]) -> None:
    await waiting


def connection_limit() -> int:
    """How many connections fit, each with a namespace's descriptor beside its own. As many files
    as the hard limit allows may be opened from now on: most supervisors set a soft one of 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return CONNECTION_LIMIT
    return max(1, min(CONNECTION_LIMIT, (hard - SPARE) // 2))
