"""The agent's unix socket: launchers and the command line, one protocol.

Each connection carries one request. The loop's own readers are used instead of streams, because a
launcher passes a descriptor of the container's namespace beside its bytes (SCM_RIGHTS), and because
accept, read, work and answer then happen in one turn of the loop. The socket is made with its mode
already closed, in a directory that only root may enter, and every peer's credentials are asked
(SO_PEERCRED). Next: `agent.verbs` for CNI requests, `agent.api` for the command line's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from weft.agent.events import Log
from weft.model.errors import PeerFault, WeftError
from weft.wire.local import Frame, Frames

BACKLOG = 4096
ACCEPT_AT_ONCE = 8  # so that a burst of connections cannot starve timers
ACCEPT_TIME = 0.003  # seconds after which others get their turn: an ADD may be done in `start`
READ_SIZE = 1 << 16
IDLE_LIMIT = 10.0  # seconds in which a peer must have sent its whole request
CONNECTION_LIMIT = 4000
SPARE = 64  # descriptors that connections leave to files, netlink sockets and workers
_CREDENTIALS = struct.Struct("=iII")

Handler = Callable[["Connection", Frame, int | None], Awaitable[None] | None]


class Connection:
    """One peer. `gone` is set when it closes before it was answered."""

    def __init__(self, server: Server, sock: socket.socket, uid: int) -> None:
        self._server = server
        self._socket = sock
        self._frames = Frames()
        self._descriptor: int | None = None
        self._outgoing = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.uid = uid
        self.gone = asyncio.Event()
        self._closed = False
        self._answered = False
        self._writing = False
        self._asked = False

    def start(self) -> None:
        """Begin to read; the request must be whole within IDLE_LIMIT."""
        self._timer = self._server.loop.call_later(IDLE_LIMIT, self._idle)
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
            if self._descriptor is None and not self._asked:
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
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing)
                del self._outgoing[:sent]
        except BlockingIOError:
            self._writing = True
            self._server.loop.add_writer(descriptor, self._flush)
            return True
        except OSError:
            self._hung_up()
            return False
        if self._writing:
            self._writing = False
            self._server.loop.remove_writer(descriptor)
        if self._answered:
            self.close()
        return True

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
        if self._timer is not None:
            self._timer.cancel()
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

    def __init__(self, path: Path, handler: Handler, log: Log) -> None:
        self.path = path
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._limit = connection_limit()
        self._handler = handler
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Bind the socket. Raises WeftError if another agent answers on it."""
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_foreign(directory)
        self._clear_stale()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            sock.bind(str(self.path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        self._socket = sock

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
        for _ in range(ACCEPT_AT_ONCE):
            if len(self.connections) >= self._limit:
                self._pause()
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS: later, when others have closed
                self.log.line("warning", "cannot accept", error=str(error))
                self._pause()
                return
            sock.setblocking(False)
            packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, uid, _ = _CREDENTIALS.unpack(packed)
            if uid != 0:
                sock.close()
                continue
            connection = Connection(self, sock, uid)
            self.connections.add(connection)
            connection.start()
            if self.loop.time() - begun > ACCEPT_TIME:
                return

    def _pause(self) -> None:
        """Accept again a little later; who connects meanwhile waits in the backlog."""
        if self._socket is not None:
            self.loop.remove_reader(self._socket.fileno())
            self.loop.call_later(0.05, self._resume)

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
            self.path.unlink(missing_ok=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for connection in list(self.connections):
            connection.close()


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


def refuse_foreign(directory: Path) -> None:
    """Raise WeftError unless the directory is real, root's, and writable by nobody else."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise WeftError(
            f"{directory} must be a directory that belongs to root and that nobody else can write; "
            "remove it and start again"
        )
