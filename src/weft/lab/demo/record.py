"""The record of what `up` made, from which `down` gives the machine back.

One JSON line a thing in /var/lib/weft/undo.jsonl, on disk before the thing is made, so that a run
killed at any point can be taken back. `give_back` walks it from the end. A thing that is gone is
no error; a file that somebody changed since is left where it is, and said.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import assert_never

import msgspec

from weft.kernel import files
from weft.lab import entering, libc
from weft.lab.demo import places
from weft.model.errors import Conflict, NotFound, Unsupported

FORMAT = 1
LARGEST = 64 << 20  # octets of a record, and of a file that `up` places


class _Thing(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    path: str


class Format(_Thing, frozen=True, kw_only=True, tag="format"):
    """The first line; `path` is where the record lives."""

    version: int


class File(_Thing, frozen=True, kw_only=True, tag="file"):
    """A file or symbolic link that was not there; `digest` of its content, or of its target."""

    digest: str


class Directory(_Thing, frozen=True, kw_only=True, tag="directory"):
    """A directory that was not there; removed when it is empty."""


class Tree(_Thing, frozen=True, kw_only=True, tag="tree"):
    """A directory of weft's own that was absent or empty; its content goes, whatever it is."""

    existed: bool


class Namespace(_Thing, frozen=True, kw_only=True, tag="namespace"):
    """A named network namespace; the links inside go with it."""


class Mount(_Thing, frozen=True, kw_only=True, tag="mount"):
    """A directory that `ip netns add` has mounted on itself; unmounted when it is empty."""


class Link(_Thing, frozen=True, kw_only=True, tag="link"):
    """A link of the machine's own namespace; `path` is its name."""


Thing = Format | File | Directory | Tree | Namespace | Mount | Link

OWN_TREES = frozenset(str(path) for path in (places.RUN, places.STATE, places.LOGS))


class Record:
    """The open record; `note` first, then make."""

    def __init__(self, path: Path = places.RECORD) -> None:
        self.path = path

    def begin(self) -> None:
        """Start a record, or go on with the one that an earlier `up` began."""
        if os.path.lexists(self.path):
            list(self.things())
            if not self._content().endswith(b"\n"):  # cut off by a kill
                with files.append(self.path) as file:
                    file.write(b"\n")
            return
        home = self.path.parent
        existed = home.exists()
        if existed and any(home.iterdir()):
            raise Conflict(
                f"{home} holds the state of another installation of weft; "
                "stop that one and move its state away first"
            )
        files.make_directory(home)
        self.note(Format(path=str(self.path), version=FORMAT))
        self.note(Tree(path=str(home), existed=existed))

    def note(self, thing: Thing) -> None:
        """Write one line through to the disk."""
        line = msgspec.json.encode(thing) + b"\n"
        with files.append(self.path) as file:
            file.write(line)
            os.fsync(file.fileno())

    def things(self) -> Iterator[Thing]:
        """All lines in order. Raises Unsupported for a record of a newer form, Conflict for one
        that others than root may have written: what it lists is removed."""
        for line in self._content().splitlines():
            try:
                thing: Thing = msgspec.json.decode(line, type=Thing)
            except msgspec.DecodeError:
                continue  # the last line of a run that was killed: nothing was made after it
            if isinstance(thing, Format) and thing.version > FORMAT:
                raise Unsupported(
                    f"{self.path} has format {thing.version}, this checkout reads up to {FORMAT}; "
                    "run `./dev down` of the checkout that ran `./dev up`"
                )
            yield thing

    def _content(self) -> bytes:
        try:
            return files.read(self.path, LARGEST)
        except NotFound:
            return b""

    def directory(self, path: Path) -> None:
        """Make a directory and its parents, each on record if it was not there."""
        for each in reversed((path, *path.parents)):
            if not each.exists():
                self.note(Directory(path=str(each)))
                each.mkdir(mode=0o755)

    def tree(self, path: Path) -> None:
        """Make a directory of weft's own; `down` empties it unless it held something before."""
        if self._knows(Tree, path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            return
        existed = path.exists()
        if not existed or not any(path.iterdir()):
            self.note(Tree(path=str(path), existed=existed))
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def file(self, path: Path, content: bytes, place: Callable[[], object]) -> None:
        """Note that `path` will have `content` and call `place`; Conflict where another's is."""
        ours = {t.digest for t in self.things() if isinstance(t, File) and t.path == str(path)}
        if os.path.lexists(path) and digest_of(path) not in ours | {digest(content)}:
            raise Conflict(
                f"{path} exists and is not of this `./dev up`; move it away and try again"
            )
        if digest(content) not in ours:
            self.note(File(path=str(path), digest=digest(content)))
        place()

    def namespace(self, path: Path) -> None:
        """Make a named network namespace unless this record made it already.

        By `ip netns`, because it mounts the directory of names on itself the first time; names
        that were mounted before could not be removed afterwards.
        """
        if self._knows(Namespace, path):
            if _is_mounted(path):
                return
            _remove_namespace(path)
        elif path.exists():
            raise Conflict(f"the network namespace {path} exists; remove it and try again")
        else:
            self.directory(path.parent)
            if not _is_mounted(path.parent):
                self.note(Mount(path=str(path.parent)))
            self.note(Namespace(path=str(path)))
        entering.output(entering.OWN, ["ip", "netns", "add", path.name])

    def link(self, name: str) -> None:
        """Note a link that is about to be made, and remove what an earlier run left of it."""
        if self._knows(Link, name):
            _remove_link(name)
        else:
            self.note(Link(path=name))

    def _knows(self, kind: type[_Thing], path: Path | str) -> bool:
        return any(isinstance(t, kind) and t.path == str(path) for t in self.things())


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_of(path: Path) -> str:
    """The digest of what is at `path`: a link's target, a file's content; "", which no file has,
    for anything else."""
    if path.is_symlink():
        return digest(os.fsencode(os.readlink(path)))
    content = files.glance(path, LARGEST)
    return "" if content is None else digest(content)


def give_back(things: list[Thing], own: frozenset[str] = OWN_TREES) -> list[str]:
    """Undo everything, last first; returns a line for each thing that had to stay.

    Only the trees in `own` are emptied, whatever the record says.
    """
    stayed = []
    digests: dict[str, set[str]] = {}
    for thing in things:
        if isinstance(thing, File):
            digests.setdefault(thing.path, set()).add(thing.digest)
    for thing in reversed(things):
        path = Path(thing.path)
        match thing:
            case File():
                for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
                    unfinished.unlink()  # a run killed just before the rename
                if not os.path.lexists(path):
                    continue
                if digest_of(path) in digests[thing.path]:
                    path.unlink()
                else:
                    stayed.append(f"{path}: changed since `up`")
            case Directory():
                _rmdir(path)
            case Tree():
                if thing.path in own:
                    _clear(path, thing.existed)
            case Namespace():
                _remove_namespace(path)
            case Mount():
                _unmount(path)
            case Link():
                _remove_link(thing.path)
            case Format():
                pass
            case _:
                assert_never(thing)
    return stayed


def _remove_namespace(path: Path) -> None:
    if path.exists():
        entering.output(entering.OWN, ["ip", "netns", "delete", path.name])


def _is_mounted(path: Path) -> bool:
    # os.path.ismount does not see a directory that is mounted on itself
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in lines)


def _unmount(path: Path) -> None:
    if _is_mounted(path) and not any(path.iterdir()):
        libc.unmount(str(path))


def _remove_link(name: str) -> None:
    if Path(f"/sys/class/net/{name}").exists():
        entering.output(entering.OWN, ["ip", "link", "delete", name])


def _rmdir(path: Path) -> None:
    with suppress(OSError):  # gone already, or something of others is in it by now
        path.rmdir()


def _clear(path: Path, keep: bool) -> None:
    if not path.is_dir() or path.is_symlink():
        return
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not keep:
        path.rmdir()
