"""The transports of the contract for rtnetlink and sysctl files.

They stand between `kernel`, which knows no rows and no stages, and the engine, which knows no
sockets. The transport of nftables is in `drivers.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.drivers.contract import Outcome, Refusal
from weft.kernel import links, rtnetlink, sysctl
from weft.kernel.namespaces import entered
from weft.kernel.netlink import Socket

_SLICE = 1000
"""Messages in one exchange: all of their acknowledgements wait in the receive buffer."""

_NOTHING = Outcome((), ())


class LinkTransport:
    """rtnetlink of one namespace: messages that are not refused are done."""

    atomic = False

    def __init__(self, via: Socket) -> None:
        self.socket = via

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        """See `contract.Transport`."""
        if len(messages) <= _SLICE:
            return self._exchange(messages, 0)
        answers: list[tuple[int, int, memoryview]] = []
        refusals: list[Refusal] = []
        for start in range(0, len(messages), _SLICE):
            outcome = self._exchange(messages[start : start + _SLICE], start)
            answers += outcome.answers
            refusals += outcome.refusals
        return Outcome(answers, refusals)

    def _exchange(self, messages: Sequence[bytes], start: int) -> Outcome:
        answers, failures = self.socket.pipeline(messages)
        if not failures and not answers:
            return _NOTHING
        return Outcome(
            [(start + at, kind, body) for at, kind, body in answers],
            [Refusal(start + each.index, each.errno, each.words) for each in failures],
        )

    def dump(self, request: bytes) -> list[tuple[int, memoryview]]:
        """All answers to a dump request as (type, body)."""
        return self.socket.dump(request)

    def find(self, name: str) -> links.Link | None:
        """One link, or None."""
        return rtnetlink.find_link(self.socket, name)

    def find_index(self, index: int) -> links.Link | None:
        """One link, or None."""
        return rtnetlink.find_index(self.socket, index)

    def close(self) -> None:
        """Give the socket back."""
        self.socket.close()


class FileTransport:
    """sysctl files of the calling thread's own namespace."""

    atomic = False

    def __init__(self) -> None:
        self._files = sysctl.Files()

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        """See `contract.Transport`."""
        refused = self._files.write(messages)
        if not refused:
            return _NOTHING
        return Outcome((), [Refusal(at, code, "") for at, code in refused])

    def read(self, paths: Sequence[str]) -> list[str | None]:
        """Values in the order asked; None where there is no such file."""
        return [self._files.read(path) for path in paths]

    def close(self) -> None:
        """Give the directories back."""
        self._files.close()


class PodTransports(FileTransport):
    """Both transports of a pod's namespace. The namespace is entered for the sysctl files, and
    the rtnetlink socket is opened on the same occasion."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self._links: LinkTransport | None = None

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        """See `contract.Transport`."""
        with entered(self.fd):
            self._open()
            return super().commit(messages)

    def read(self, paths: Sequence[str]) -> list[str | None]:
        """As `FileTransport.read`, inside the pod."""
        with entered(self.fd):
            self._open()
            return super().read(paths)

    @property
    def links(self) -> LinkTransport:
        """rtnetlink inside the pod."""
        if self._links is None:
            with entered(self.fd):
                return self._open()
        return self._links

    def _open(self) -> LinkTransport:
        if self._links is None:
            try:
                self._links = LinkTransport(rtnetlink.open_socket())
            except OSError as error:
                error.add_note("a socket in the container's network namespace cannot be had")
                raise
        return self._links

    def close(self) -> None:
        """Give all back; the descriptor of the namespace belongs to the caller."""
        super().close()
        if self._links is not None:
            self._links.close()
            self._links = None
