"""What every store promises: get, list, watch with resume, and commit-if-unchanged.

Keys are paths (`/ippools/default`), values bytes. There is one revision for the whole store; it
rises with each commit that changes something, and every key remembers the revision that
wrote it. A commit is all or nothing over all its keys.

Watching: `list` gives a revision R; `watch(prefix, R)` then gives every later change in order,
each once. The events of one commit share its revision and only the last of them has
`more=False`: a watcher resumes from the revision of an event with `more=False`. History and
queues are bounded; a watcher that asks for more than is kept, or falls behind, gets the error
with reason `compacted` and lists again. Implementations: `memory.py`, `sqlite.py`, `etcd/`; one
suite of tests holds for all of them.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from weft.model.errors import Conflict, Invalid

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 1 << 20
MAX_CHANGES = 100
"""Below what etcd allows by default, 128 (`--max-txn-ops`)."""
HELD = "/held/"
"""Keys of what goes by itself unless it is held."""


class Expect(enum.Enum):
    """What a change expects of its key when it names no revision."""

    ABSENT = "absent"
    ANY = "any"


ABSENT = Expect.ABSENT
ANY = Expect.ANY


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its value and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All entries under a prefix, by key, and the store's revision at that moment."""

    items: tuple[Entry, ...]
    revision: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Write `value` (None: delete) if the key is as expected: a revision, ABSENT or ANY."""

    key: str
    value: bytes | None
    expected: int | Expect = ANY


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A key now has `value` (None: it was deleted). `more`: the commit has further events."""

    key: str
    value: bytes | None
    revision: int
    more: bool = False


class Watch(Protocol):
    """The events of one watcher, an async iterator. Ends when the store is closed."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event: ...

    async def aclose(self) -> None:
        """Stop watching; what was queued is dropped."""


class Store(Protocol):
    """One store. Its methods belong to one event loop."""

    async def get(self, key: str) -> Entry | None:
        """The entry, or None when there is none."""

    async def list(self, prefix: str) -> Listing:
        """All entries whose key begins with `prefix`."""

    async def commit(self, changes: Sequence[Change]) -> int:
        """Make all changes or none; returns the store's revision afterwards.

        Raises `Conflict` naming the first key that is not as expected. Deleting what is not
        there is no change, and a commit without a change keeps the revision.
        """

    def watch(self, prefix: str, after: int) -> Watch:
        """Every change under `prefix` later than the revision `after`, from this call on."""

    async def hold(self, key: str, value: bytes, seconds: float) -> None:
        """Write an entry below `/held/` that goes by itself, as a deletion that watches see,
        unless it is held again within `seconds`. For signs of life; one holder a key."""

    async def close(self) -> None:
        """End all watches and let go of what the store holds. Idempotent."""


def compacted(after: int, oldest: int) -> Conflict:
    """The error that tells a watcher to list again."""
    return Conflict(
        f"a watch cannot resume after revision {after}: history begins at {oldest}; list again",
        reason="compacted",
    )


def fell_behind(limit: int) -> Conflict:
    """The same for a watcher that let its queue overflow."""
    return Conflict(
        f"a watch fell more than {limit} events behind and was ended; list again",
        reason="compacted",
    )


def check_changes(changes: Sequence[Change]) -> None:
    """Raise `Invalid` for a malformed commit, before anything is looked at."""
    if len(changes) > MAX_CHANGES:
        raise _invalid(f"a commit of {len(changes)} changes; at most {MAX_CHANGES} are allowed")
    keys: set[str] = set()
    for change in changes:
        check_key(change.key)
        if change.key in keys:
            raise _invalid(f"a commit names the key {change.key} twice")
        keys.add(change.key)
        if change.value is not None and len(change.value) > MAX_VALUE_BYTES:
            raise _invalid(
                f"the value of {change.key} has {len(change.value)} bytes; "
                f"at most {MAX_VALUE_BYTES} are allowed"
            )


def check_held(key: str, seconds: float) -> None:
    """Raise `Invalid` for what cannot be held."""
    check_key(key)
    if not key.startswith(HELD):
        raise _invalid(f"{key} cannot be held: only what is below {HELD} goes by itself")
    if not 0 < seconds <= 3600:
        raise Invalid(
            f"held for {seconds} s; more than 0 and at most 3600 are allowed", field="seconds"
        )


def check_key(key: str) -> None:
    """A key is `/` and parts joined by `/`, none empty, printable, at most 1,024 bytes."""
    parts = key.split("/")
    if (
        len(parts) < 2
        or parts[0]
        or not all(parts[1:])
        or not key.isprintable()
        or len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES
    ):
        raise _invalid(f"{key[:80]!a} is not a key such as /ippools/default")


def conflict(change: Change, found: int | None) -> Conflict:
    """The error for a key that is not as `change` expects; `found`: its revision, None: absent."""
    wanted = "to be absent" if change.expected is ABSENT else f"at revision {change.expected}"
    present = "it does not exist" if found is None else f"it is at revision {found}"
    return Conflict(f"{change.key} was expected {wanted}, but {present}; read it again")


def holds(expected: int | Expect, found: int | None) -> bool:
    """Whether a key whose revision is `found` (None: absent) is as expected."""
    match expected:
        case Expect.ANY:
            return True
        case Expect.ABSENT:
            return found is None
        case revision:
            return found == revision


def _invalid(message: str) -> Invalid:
    return Invalid(message, field="key", reason="invalid-object")
