"""The store's objects as this node saw them last, kept in the journal.

The journal is on /run, the store on a disk: one of them usually survives the other. A store that
was lost or damaged gets back, before anything new is chosen, what the journal has seen and what
could still be read of the damaged file; so pods keep their pools and blocks, and no range is
chosen twice. What cannot be brought back is named.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from weft.agent.events import Log
from weft.agent.journal import Journal
from weft.model.errors import WeftError
from weft.model.kinds import from_bytes
from weft.store.contract import ABSENT, MAX_CHANGES, Change, Store

LARGEST = 64 * 1024
"""Octets of an object; of a larger one only the key is kept, so that its loss can be told."""
NAMED = 10  # objects that one message names


class Mirror:
    """Follows the store into the journal, and back once."""

    def __init__(self, journal: Journal, log: Log) -> None:
        self._journal = journal
        self._log = log
        self._seen = journal.read().seen
        self._sums = {key: zlib.crc32(value) for key, value in self._seen.items()}
        self.lost: tuple[str, ...] = ()  # keys of objects that could not be brought back

    def saw(self, key: str, value: bytes | None) -> None:
        """An object is as `value` now; None: it is gone."""
        kept = value if value is None or len(value) <= LARGEST else b""
        total = None if kept is None else zlib.crc32(kept)
        if self._sums.get(key) == total:
            return
        if total is None:
            del self._sums[key]
        else:
            self._sums[key] = total
        try:
            self._journal.saw(key, kept)
        except WeftError:
            return  # the journal has its own trouble, and is written anew from the store

    def listed(self, present: Iterable[str]) -> None:
        """These are all the keys that there are."""
        for key in self._sums.keys() - set(present):
            self.saw(key, None)

    async def restore(self, store: Store, salvaged: Mapping[str, bytes], why: str) -> None:
        """Give a new store what is known of the one before. `why` it is new, for a person; ""
        where it is not: then everything is as it should be, and nothing is done."""
        seen, self._seen = self._seen, {}
        if not why:
            return
        present = {item.key for item in (await store.list("/")).items}
        # what was seen came through a checksum of this boot; the damaged file may be older
        known = {**salvaged, **seen}
        sound = {k: v for k, v in known.items() if k not in present and _is_sound(v)}
        self.lost = tuple(sorted(known.keys() - sound.keys() - present))
        changes = [Change(key=k, value=v, expected=ABSENT) for k, v in sorted(sound.items())]
        for start in range(0, len(changes), MAX_CHANGES):
            await store.commit(changes[start : start + MAX_CHANGES])
        if sound:
            words = f"{why}; brought back {len(sound)} objects: {_named(sound)}"
            self._log.event("warning", "StoreRestored", "store", words)
        if self.lost:
            words = f"{why}; lost: {_named(self.lost)}; apply their manifests again"
            self._log.event("error", "ObjectsLost", "store", words)

    def objects(self) -> dict[str, bytes]:
        """Everything that the journal has seen and kept whole."""
        return {key: value for key, value in self._journal.read().seen.items() if value}

    def told(self) -> str:
        """What was lost, for status; "" for nothing."""
        if not self.lost:
            return ""
        return f"lost with the store: {_named(self.lost)}; apply their manifests again"


def _is_sound(value: bytes) -> bool:
    try:
        from_bytes(value, 0)
    except WeftError:
        return False
    return True


def _named(keys: Mapping[str, bytes] | tuple[str, ...]) -> str:
    names = [key.removeprefix("/") for key in sorted(keys)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
