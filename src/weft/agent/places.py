"""The agent's own files, judged before any of them is opened.

Socket, journal, queue and store lie in directories that only root can change; where one does not,
or where the store is not a plain file of root's, the agent does not start and says what to do. A
journal that is not one is set aside instead: what it says can be read back from the kernel, and
a node without an agent attaches nobody. How it is judged: `kernel.files`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from weft.kernel import files
from weft.model.errors import Conflict, NotFound, WeftError
from weft.model.manifests import MAX_BYTES
from weft.model.settings import Settings, load_settings

BOOT_ID = Path("/run/weft/boot-id")
"""Where a machine that shares its kernel says which boot it counts as, e.g. a lab node."""
TIMEOUT = "add-timeout"
"""Beside the socket: how long launchers wait for an ADD, in whole seconds."""


def secure(settings: Settings, *, make: bool = True) -> str:
    """Make the directories (unless `make` is False) and judge what is there.

    Returns what was set aside, in words, or "". Raises Conflict for what is not safe.
    """
    paths = settings.paths
    every = (paths.socket, paths.journal, paths.queue, paths.store)
    for directory in sorted({Path(path).parent for path in every}):
        if make:
            files.make_directory(directory)
        else:
            with suppress(NotFound):
                files.check_directory(directory)
    files.check_database(Path(paths.store))
    journal = Path(paths.journal)
    try:
        files.check_database(journal)
    except Conflict as error:
        (kept, *_) = files.set_aside(files.companions(journal))
        return f"{error.message} - kept as {kept.name} and its like, and begun anew"
    return ""


def read_settings(path: Path, *, required: bool) -> Settings:
    """Settings of a file; the defaults where there is none and none was asked for."""
    try:
        text = files.read(path.absolute(), MAX_BYTES, linked=True)
    except NotFound:
        if required:
            raise WeftError(f"{path} does not exist", reason="invalid-settings") from None
        return Settings()
    return load_settings(text, source=str(path))


def tell_launchers(socket: Path, add_timeout: float) -> None:
    """Write how long launchers wait for an ADD; they read it beside the socket."""
    files.replace(socket.with_name(TIMEOUT), f"{max(1, round(add_timeout))}\n".encode(), 0o644)


def told(socket: Path) -> bool:
    """Whether launchers find how long they wait."""
    return socket.with_name(TIMEOUT).exists()


def own_boot_id() -> str | None:
    """The boot-id that this machine gave itself, or None."""
    try:
        return files.read(BOOT_ID, 64).decode(errors="replace").strip() or None
    except NotFound:
        return None
