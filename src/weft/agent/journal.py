"""The journal: what this node has promised to containers since it booted.

One SQLite file on /run with one connection. An attachment is written as `intent` before its first
effect, so that after a kill at any point the next start knows what to undo. Nothing is fsynced: an
attachment need not survive a power loss, for after a reboot no container lives; the boot-id in the
file tells the last boot's journal from this one's. Rows are MessagePack of `model.attachment`.

The file may vanish or fail under the living agent. Before each write it is looked at (two stat
calls), and what could not be written is remembered as `trouble`; `renew` writes a complete journal
from memory, which `agent.keeping` does as soon as it can. Bytes and formats: `journal_file.py`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from weft.agent import journal_file
from weft.agent.journal_file import FORMAT, Content, Cooling, GivenValue, remove_journal, unwritable
from weft.kernel import files
from weft.model.attachment import Attachment, AttachmentKey
from weft.model.egress import EgressList
from weft.model.errors import Conflict, WeftError

__all__ = ["FORMAT", "Content", "Journal", "remove_journal"]

_DROPS = tuple(
    f"DELETE FROM {table} WHERE network = ? AND container = ? AND ifname = ?"  # noqa: S608
    for table in ("attachment", "former")
)

Seen = tuple[int, int, int]
"""Device, inode and size of a file."""


class Journal:
    """The open journal. Every write is one committed statement or transaction."""

    def __init__(self, path: Path, boot_id: str) -> None:
        """Open or create. A journal of another boot or with damage is set aside: `fresh` says so.

        Raises Unsupported for a journal written by a newer weft, before touching it.
        """
        self.path = path
        self.fresh = ""  # why this journal started empty or lost something; "" if it did not
        self.trouble = ""  # why it does not hold what it should, for a person; "" while it does
        self._boot_id = boot_id
        self._names = tuple(str(file) for file in journal_file.files(path))[:2]
        self._db, self.fresh = journal_file.open_file(path, boot_id)
        content, bad = self._first_content()
        if bad:
            self.fresh = f"{bad} records of the journal were damaged and are not believed"
            self._rewrite(content)
        self._stand = self._look()

    def _first_content(self) -> tuple[Content, int]:
        try:
            return journal_file.read(self._db)
        except sqlite3.Error as error:  # it passed the check of its pages, and cannot be read
            if not journal_file.is_damage(error):
                raise self._failed(error) from error
            self._db.close()
            journal_file.set_aside(self.path)
            self._db, _ = journal_file.open_file(self.path, self._boot_id)
            self.fresh = f"the journal was damaged ({error}) and was set aside"
            return journal_file.read(self._db)

    def close(self) -> None:
        """Close the file; the journal is complete at any moment anyway."""
        self._db.close()

    # -- writing

    def put(self, attachment: Attachment) -> None:
        """Write or replace one attachment. Raises WeftError (journal-unwritable)."""
        self._execute(_put(attachment), journal_file.attachment_row(attachment))

    def put_all(self, attachments: Sequence[Attachment]) -> None:
        """Write or replace several, all or none. Raises WeftError (journal-unwritable)."""
        with self._whole() as db:
            for each in attachments:
                db.execute(_put(each), journal_file.attachment_row(each))

    def drop(
        self, key: AttachmentKey, cooling: tuple[tuple[str, int], ...] = (), since: float = 0.0
    ) -> None:
        """Forget an attachment; its addresses, each with the sequence of its holding, cool from
        `since` (monotonic seconds) on."""
        with self._whole() as db:
            for statement in _DROPS:
                db.execute(statement, (key.network, key.container, key.ifname))
            db.executemany(
                journal_file.COOL,
                [journal_file.cooling_row((a, sequence, since)) for a, sequence in cooling],
            )

    @contextlib.contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises WeftError (journal-unwritable)."""
        self._in_place()
        try:
            self._db.execute("BEGIN")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # a file that could not be opened again
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise self._failed(error) from error

    def warmed(self, before: float) -> None:
        """Forget the addresses that were given back before this monotonic second."""
        self._execute("DELETE FROM cooling WHERE since < ?", (before,))

    def remember(self, path: str, before: str, wrote: str) -> None:
        """A global sysctl that we change; which value to keep is `agent.given`'s to know."""
        self._execute(journal_file.GIVE, journal_file.given_row((path, before, wrote)))

    def saw(self, key: str, value: bytes | None) -> None:
        """An object of the store as it is now; None: it is gone. For a store that is lost."""
        if value is None:
            self._execute("DELETE FROM seen WHERE key = ?", (key,))
        else:
            self._execute(journal_file.SEE, journal_file.seen_row(key, value))

    def keep_list(self, egress: EgressList) -> None:
        """An egress list that an attachment is about to have."""
        self._execute(journal_file.LIST, journal_file.list_row(egress))

    def drop_list(self, digest: str) -> None:
        """A list that nobody has any more."""
        self._execute("DELETE FROM egress WHERE digest = ?", (digest,))

    def look(self, *, write: bool) -> None:
        """Whether the file is still in its place and, with `write`, can be written. Raises
        WeftError where not."""
        self._in_place()
        if write:
            self._execute("INSERT OR REPLACE INTO meta VALUES ('probe', '')", ())

    def renew(self, content: Content) -> None:
        """Make the file hold exactly `content`: a new file where ours is gone or damaged.

        Takes about 10 ms for 1,000 attachments. Raises WeftError, and `trouble` stays.
        """
        try:
            if self._missing() or not self._is_sound():
                self._begin_anew()
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        except Conflict as error:
            self.trouble = f"the journal cannot be written anew: {error.message}"
            raise
        self._rewrite(content)
        self.trouble = ""
        self._stand = self._look()

    def _rewrite(self, content: Content) -> None:
        try:
            journal_file.write(self._db, content, self._boot_id)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _is_sound(self) -> bool:
        try:
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.Error as error:
            if not journal_file.is_damage(error):
                raise
            return False

    def _begin_anew(self) -> None:
        """Another file in the place of one that is gone, replaced, or damaged."""
        # its directory may have been replaced, too, and by one that others can write
        files.make_directory(self.path.parent)
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        journal_file.set_aside(self.path)
        self._db = journal_file.connect(self.path)
        self._stand = self._look()

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        self._in_place()
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> WeftError:
        if isinstance(error, sqlite3.ProgrammingError) and self.trouble:
            # closed, because it could not be opened again: why is known
            return WeftError(self.trouble, reason="journal-unwritable")
        told = unwritable(self.path, error)
        self.trouble = told.message
        return told

    # -- the file under us

    def _in_place(self) -> None:
        """Raise where the file is no longer the one that was opened: what is written to a deleted
        file is lost with the agent."""
        if (why := self._missing()) is not None:
            self.trouble = (
                f"the journal {self.path} {why} while the agent ran; it is written anew within "
                "seconds where its file system allows it"
            )
            raise WeftError(self.trouble, reason="journal-unwritable")

    def _missing(self) -> str | None:
        now = self._look()
        for before, found in zip(self._stand, now, strict=True):
            if before is not None and found is None:
                return "was deleted"
            if before is not None and found is not None:
                if before[:2] != found[:2]:
                    return "was replaced"
                if found[2] < before[2]:
                    return "was cut short"
        self._stand = now
        return None

    def _look(self) -> tuple[Seen | None, ...]:
        return tuple(map(_stat, self._names))

    # -- reading

    def read(self) -> Content:
        """Everything that the file holds now and that its checksums confirm."""
        try:
            return journal_file.read(self._db)[0]
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def attachments(self) -> Iterator[Attachment]:
        """All attachments, in the order of their keys."""
        return iter(self.read().attachments)

    def cooling(self) -> list[Cooling]:
        """What was given back in this boot, oldest first."""
        return self.read().cooling

    def remembered(self) -> list[GivenValue]:
        """Every global sysctl that we changed, with the value before."""
        return self.read().given


def _put(attachment: Attachment) -> str:
    return journal_file.PUT if attachment.former is None else journal_file.PUT_FORMER


def _stat(name: str) -> Seen | None:
    try:
        found = os.stat(name, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size
