"""A release of weft as it lies on a node: a program, a launcher, and the formats that it reads.

Another release is asked through its own interpreter, with a handful of names that every release
since 0.1.0 has; so it need not have an `upgrade` command of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from weft import __version__
from weft.agent.journal import FORMAT as JOURNAL_FORMAT
from weft.agent.places import read_settings
from weft.cni.install import LAUNCHER
from weft.model.attachment import ALIAS_VERSION
from weft.model.errors import Invalid, NotFound, WeftError
from weft.model.settings import SETTINGS_PATH
from weft.store.sqlite_file import FORMAT as STORE_FORMAT
from weft.wire.local import OLDEST_VERSION, VERSION

PATIENCE = 30.0
UNITS = Path(__file__).with_name("units")
"""This release's units for systemd."""

_QUESTION = """
import json, pathlib, sys
import weft
from weft import __version__
from weft.agent.journal import FORMAT as journal
from weft.cni.install import LAUNCHER
from weft.model.attachment import ALIAS_VERSION
from weft.model.settings import load_settings
from weft.store.sqlite_file import FORMAT as store
from weft.wire.local import OLDEST_VERSION, VERSION
settings, trouble = pathlib.Path(sys.argv[1]), ""
try:
    if settings.exists():
        load_settings(settings.read_bytes())
except Exception as error:
    trouble = str(error)
formats = dict(journal=journal, store=store, alias=ALIAS_VERSION,
               oldest_protocol=OLDEST_VERSION, protocol=VERSION)
units = pathlib.Path(weft.__file__).parent / "upgrade" / "units"
print(json.dumps(dict(version=__version__, launcher=str(LAUNCHER), settings=trouble,
                      formats=formats, units=str(units) if units.is_dir() else "")))
"""


class Formats(msgspec.Struct, frozen=True, kw_only=True):
    """The newest format of each kind that a release reads; it reads all older ones too. Of the
    local protocol, in which queued deletions are written, it says the oldest as well."""

    journal: int
    store: int
    alias: int
    protocol: int
    oldest_protocol: int


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """`settings`: why it cannot read the node's settings file; empty where it can. `units`: where
    its units for systemd lie; empty where it brings none."""

    version: str
    program: str = ""
    launcher: str
    formats: Formats
    settings: str = ""
    units: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """The version for comparing: its leading decimal numbers."""
        return number_of(self.version)


def number_of(version: str) -> tuple[int, ...]:
    """`0.2.0rc1` is (0, 2, 0); what is no version at all comes before every other."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or not digits.isascii():
            break
        numbers.append(int(digits))
    return tuple(numbers)


def own(settings: Path) -> Release:
    """The release that runs this code."""
    program = Path(sys.executable).with_name("weft")
    if not program.is_file():
        raise Invalid(
            f"{program} does not exist: this weft was not installed as a program; install it into "
            "an environment of its own, or name another release with --to",
            field="--to",
            reason="invalid-argument",
        )
    trouble = ""
    try:
        read_settings(settings, required=False)
    except WeftError as error:
        trouble = error.message
    return Release(
        version=__version__,
        program=str(program),
        launcher=str(LAUNCHER),
        settings=trouble,
        units=str(UNITS),
        formats=Formats(
            journal=JOURNAL_FORMAT,
            store=STORE_FORMAT,
            alias=ALIAS_VERSION,
            protocol=VERSION,
            oldest_protocol=OLDEST_VERSION,
        ),
    )


def ask(program: Path, settings: Path) -> Release:
    """Another release, asked. Raises Invalid for what is no weft, NotFound for nothing."""
    program = Path(program).absolute()
    interpreter = program.with_name("python")
    if not program.is_file():
        raise NotFound(f"there is no program {program}")
    if not interpreter.exists():
        raise _no_release(program, f"there is no {interpreter} beside it")
    argv = [str(interpreter), "-I", "-c", _QUESTION, str(settings)]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise _no_release(program, lines[-1] if lines else f"status {done.returncode}")
        found = msgspec.json.decode(done.stdout, type=Release)
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        raise _no_release(program, str(error)) from error
    return msgspec.structs.replace(found, program=str(program))


class Asked:
    """Releases by their programs, each asked once. `known`: one that need not be asked."""

    def __init__(self, known: Release) -> None:
        self._found: dict[str, Release | None] = {known.program: known}

    def at(self, program: str) -> Release | None:
        """The release; None where it cannot be asked."""
        if program not in self._found:
            try:
                self._found[program] = ask(Path(program), Path(SETTINGS_PATH))
            except WeftError:
                self._found[program] = None
        return self._found[program]


def _no_release(program: Path, why: str) -> Invalid:
    return Invalid(
        f"{program} could not be asked which formats it reads ({why[:300]}); name the `weft` in "
        "the bin directory of a release's environment",
        field="--to",
        reason="invalid-argument",
    )
