"""The command: collect every part, say what is missing, write one archive that only root reads."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.cli.options import client_of
from weft.cli.output import complain, echo
from weft.cli.support.parts import LARGEST, PARTS, Scene
from weft.cli.support.redaction import Redactor
from weft.kernel import files
from weft.model.errors import Conflict, WeftError

LIMIT = 120.0  # seconds for everything
TOTAL = 64 << 20  # octets of all parts together

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def support(
    ctx: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE|DIR", help="Where the archive is written."),
    ] = Path("."),
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE|DIR",
            help="The agent's log, or a directory of the journal's, if elsewhere.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The agent's settings; without it, the file that the running agent names.",
        ),
    ] = None,
) -> None:
    """Collect what a bug report needs into one archive, without secrets.

    Status, findings, objects, journal, store, kernel state and the end of the log. Values of
    labels, annotations and unknown keys become tokens; look through it before you pass it on.
    Works without a running agent too, and says what is missing then. Changes nothing.

    \b
    Examples:
      weft support
      weft support --output /root/
    """
    redactor = Redactor(os.urandom(16))
    scene = Scene(client_of(ctx), redactor, log, config)
    parts, missing = collect(scene)
    made = time.time()
    summary = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made)),
        "parts": sorted(parts),
        "missing": missing,
    }
    parts["summary.json"] = json.dumps(summary, indent=2) + "\n"
    place = _place(output, made)
    content = pack({name: redactor.finish(text) for name, text in parts.items()}, made)
    files.replace(place, content, 0o600)
    echo(str(place))
    for name in sorted(parts):
        echo(f"  {name}")
    for name, why in missing.items():
        echo(f"  without {name}: {why}")


def collect(scene: Scene) -> tuple[dict[str, str], dict[str, str]]:
    """Texts by name, and why others are missing; within LIMIT and TOTAL."""
    parts: dict[str, str] = {}
    missing: dict[str, str] = {}
    end = time.monotonic() + LIMIT
    room = TOTAL
    for name, part in PARTS:
        if time.monotonic() > end:
            missing[name] = f"more than {LIMIT:.0f} s had passed"
            continue
        complain(f"collecting {name}")
        try:
            text = _as_text(part(scene))
        except WeftError as error:
            missing[name] = scene.redactor.text(error.message)
            continue
        except Exception as error:  # one part must not cost the others
            missing[name] = f"{type(error).__name__}"
            continue
        if len(text) > min(LARGEST, room):
            missing[name] = f"{len(text)} characters are more than fit"
            continue
        room -= len(text)
        parts[name] = text
    return parts, missing


def pack(parts: dict[str, str], made: float) -> bytes:
    """A tar.gz of texts, every file readable by its owner alone."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=int(made)) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, text in sorted(parts.items()):
            content = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"weft-support/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(made)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _as_text(found: Any) -> str:
    if isinstance(found, str):
        return found
    return json.dumps(found, indent=1, default=str) + "\n"


def _place(output: Path, made: float) -> Path:
    """The archive's path; raises Conflict where something is there already."""
    place = Path(os.path.abspath(output))
    if place.is_dir():
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made))
        place = place / f"weft-support-{os.uname().nodename}-{when}.tar.gz"
    if os.path.lexists(place):
        raise Conflict(f"{place} exists; name another file with --output")
    return place
