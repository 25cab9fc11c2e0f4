"""What a driver is, in which order things stand up, and how messages reach the kernel.

A driver knows one kind of row: it turns a change into messages, reads back what is there, and
says which keys a notification touches. It sends nothing. A transport carries messages of many
drivers in one exchange. The one engine (`drivers.engine`) orders, batches, and remembers.

The order of `Stage` is law. Guards and sysctls stand before any link is up; the pod's end goes up
while the host's is still down, so it has no carrier; the host's end is the very first message of
the last stage, and no packet flows before it. Removal runs backwards, except that rule
elements go first: a source that no guard lists is dropped, so the cut is immediate.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from weft.rows.base import Place, Row, RowKey


class Stage(enum.IntEnum):
    """When a row is made; one batch each. Lower stages are complete before a higher one starts."""

    GUARD = 0  # nftables, one transaction: tables, sets, chains, elements (and their removals)
    CREATE = 1  # rtnetlink of the host: veth pairs, both ends down, peer born in the pod; ifbs
    TUNE_HOST = 2  # sysctl files of the host's end, and of the node
    TUNE_POD = 3  # sysctl files inside the pod
    POD = 4  # rtnetlink of the pod: two of its sysctls, links up, addresses, routes, neighbours
    HOST = 5  # rtnetlink of the host: limits, the host's end up, addresses, neighbours, routes


STAGES = tuple(Stage)
"""All of them, for who walks through them often: of an enumeration each member costs a call."""


class Medium(enum.IntEnum):
    """Which transport carries a message."""

    RULES = 0
    HOST_LINKS = 1
    HOST_FILES = 2
    POD_FILES = 3
    POD_LINKS = 4


MEDIUM: Mapping[Stage, Medium] = {
    Stage.GUARD: Medium.RULES,
    Stage.CREATE: Medium.HOST_LINKS,
    Stage.TUNE_HOST: Medium.HOST_FILES,
    Stage.TUNE_POD: Medium.POD_FILES,
    Stage.POD: Medium.POD_LINKS,
    Stage.HOST: Medium.HOST_LINKS,
}

Position = tuple[Stage, int]
"""Stage of a row, and its rank inside the batch of that stage (removal: the reverse)."""


class Refusal(NamedTuple):
    """The kernel refused the message at place `at` of a batch."""

    at: int
    errno: int
    words: str


class Outcome(NamedTuple):
    """What a batch came to. `answers`: (place, netlink type, body) of messages that asked."""

    answers: Sequence[tuple[int, int, memoryview]]
    refusals: Sequence[Refusal]


class Transport(Protocol):
    """Carries a batch to the kernel.

    `atomic`: one refusal means that nothing of the batch was done (nftables; the transport adds
    the begin and end of the transaction itself, and repeats it where the kernel only asks for a
    repetition). Otherwise the messages that were not refused are done.
    """

    @property
    def atomic(self) -> bool: ...

    def commit(self, messages: Sequence[bytes]) -> Outcome:
        """Send all messages in one exchange. Places in the outcome are those of `messages`."""
        ...


class Names(Protocol):
    """What an encoder may ask about the surroundings of a row."""

    def index(self, place: Place, link: str) -> int:
        """Interface index. Raises KernelRefused(ENODEV) for a link that is not there."""
        ...

    def find(self, place: Place, link: str) -> int | None:
        """As `index`, but None for a link that is not there."""
        ...

    def name(self, place: Place, index: int) -> str | None:
        """Name of a link by index, or None."""
        ...

    def learn(self, place: Place, link: str, index: int) -> None:
        """Remember what a message has told."""
        ...

    def pod(self) -> int:
        """File descriptor of the pod's namespace. Raises KernelRefused where none was given."""
        ...


class Scope(Protocol):
    """Where a driver reads: one namespace, its transports and names."""

    @property
    def place(self) -> Place: ...

    @property
    def names(self) -> Names: ...

    def transport(self, medium: Medium) -> Any:
        """The transport itself, with whatever reading verbs it has; None: there is none here."""
        ...


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Notifications a driver wants: netlink protocol and multicast groups."""

    protocol: int
    groups: tuple[int, ...]


R_contra = TypeVar("R_contra", bound=Row, contravariant=True)


class Driver(Protocol[R_contra]):
    """One kind of row. Stateless, or with a state that can be thrown away."""

    @property
    def kinds(self) -> tuple[type[Row], ...]:
        """The row classes this driver knows."""
        ...

    @property
    def gone(self) -> Collection[int]:
        """What errno means "it was not there" when a row is being removed."""
        ...

    @property
    def watch(self) -> Watch | None:
        """Where changes by others are announced; None: nowhere."""
        ...

    def position(self, row: R_contra) -> Position:
        """When the row is made, relative to all others."""
        ...

    def encode(self, old: R_contra | None, new: R_contra | None, names: Names) -> Sequence[bytes]:
        """Messages that turn `old` (the shadow or the read-back) into `new`; None: absent.

        Making a row that stands already must succeed. An empty answer means that nothing has to
        be sent (a row that dies with its link, a file that cannot be removed).
        """
        ...

    def read(self, rows: Sequence[R_contra], scope: Scope) -> Mapping[RowKey, Row]:
        """What the kernel holds under the keys of `rows`; absent keys are absent.

        One exchange for a few rows, whole tables where `rows` are many. A found row compares
        equal to the wanted one exactly when nothing needs to be done.
        """
        ...

    def words(self, row: R_contra, found: Row | None) -> str:
        """One sentence for people: how `found` differs from `row`."""
        ...

    def touched(self, kind: int, body: memoryview, names: Names) -> Collection[RowKey]:
        """Keys (in the host's namespace) that a notification of `watch` is about."""
        ...


@runtime_checkable
class Creator(Driver[R_contra], Protocol[R_contra]):
    """A driver of `Stage.CREATE`: what it makes has an identity that only the kernel knows."""

    def created(self, row: R_contra, scope: Scope) -> None:
        """The object stands, and is in the shadow: mark it, learn its identity."""
        ...

    def cleared(self, row: R_contra, errno: int, scope: Scope) -> bool:
        """The kernel refused to make `row`. True: the cause was removed, try once more. False:
        report the refusal. May raise an error that says more."""
        ...

    def settle(self, row: R_contra, scope: Scope) -> None:
        """All stages are complete: wait for what the kernel does in the background."""
        ...


class Difference(NamedTuple):
    """A row that is not as promised. `found` None: it is missing. `refused`: the kernel would not
    have it mended, and the words say why."""

    row: Row
    found: Row | None
    words: str
    mended: bool = False
    refused: bool = False
