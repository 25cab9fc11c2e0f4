"""`weft logs`: the agent's log, of everything or of one pod.

The agent need not run: only to learn a pod's other names - its link, its container - it is asked,
briefly. Where the log is: `log_sources.py`; what a line says: `wire.records`.
"""

from __future__ import annotations

import enum
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from weft.cli.client import Client
from weft.cli.columns import GAP, coloured, plain
from weft.cli.completing import BRIEFLY, complete_pod
from weft.cli.log_sources import Source, find_source
from weft.cli.options import client_of
from weft.cli.output import complain, echo
from weft.model.errors import Invalid, WeftError
from weft.model.names import printable
from weft.wire.api import GetParams
from weft.wire.records import ABOUT, LEVELS, Record

TAIL = 200  # lines, where neither --since nor --tail is said
WIDEST = 48  # characters to which the column of what a line is about may grow
_COLOURS = {"debug": "bold", "info": "ok", "warning": "warn", "error": "bad"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Level(enum.StrEnum):
    """Severities, the least first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Form(enum.StrEnum):
    """Forms of a record: JSON, or the text of its message and fields without columns."""

    JSON = "json"
    TEXT = "text"


def _with_names(ctx: typer.Context, words: list[str] | None) -> list[str]:
    """The words, and other names of what is attached under them."""
    if ctx.resilient_parsing or not words:
        return list(words or ())
    root = client_of(ctx)
    return sorted(names_of(Client(root.path, second=root.second, patience=BRIEFLY), words))


About = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ABOUT]...",
        help="Only lines about these: a pod (NAMESPACE/NAME) or container that is attached, a "
        "link, an address, a pool, or any word.",
        autocompletion=complete_pod,
        callback=_with_names,
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="10m, 2h, 3d, or a time in UTC: 2026-11-25T10:00:00."
    ),
]
Tail = Annotated[
    int | None,
    typer.Option(
        "-n", "--tail", metavar="LINES", min=0, help="The last lines only.", show_default="200"
    ),
]
Place = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="PATH", help="A log that is elsewhere, or a directory of journals."
    ),
]


def logs(
    about: About = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Then go on with what is written.")
    ] = False,
    since: Since = None,
    tail: Tail = None,
    level: Annotated[
        Level | None, typer.Option("--level", help="Only lines of this severity and above.")
    ] = None,
    output: Annotated[Form | None, typer.Option("-o", "--output", help="Form.")] = None,
    file: Place = None,
) -> None:
    """Show the agent's log.

    From the journal where systemd runs, else from /var/log/weft/agent.log. Each line has a time in
    UTC, a severity, what it is about, what happened, and details; `outcome` is ok or a reason that
    `weft explain` knows. A pod that is attached is found by all its names; one that is gone by its
    container id or link. Lines that the agent did not write itself, tracebacks for instance, stay
    with the line before them.

    \b
    Examples:
      weft logs                                 the last 200 lines
      weft logs -f --level warning              what goes wrong, as it happens
      weft logs shop/web-0 --since 1h           all about one pod
      weft logs -n 1000 -o json                 one JSON object a line
      weft logs --file /run/weft-agent.log      of a lab node
    """
    begin = _moment(since) if since is not None else None
    lines = tail if tail is not None else None if begin is not None else TAIL
    source = find_source(file)
    chosen = _Chosen(about or (), level, begin)
    show = _shower(output)
    some = 0
    for record in _last(_past(source, chosen, lines), lines):
        show(record)
        some += 1
    if follow:
        signal.signal(signal.SIGTERM, _end)  # journalctl would stay behind
        for record in source.coming():
            if chosen.takes(record):
                show(record)
    elif not some:
        complain("No lines.")


def _end(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def names_of(client: Client, words: Iterable[str]) -> set[str]:
    """The words; of one that is attached also its link, key, container, pod and addresses."""
    names = set(words)
    for word in words:
        try:
            found = client.call("get", GetParams(kind="Attachment", name=word))
        except (WeftError, OSError):
            continue
        spec, status = found.get("spec", {}), found.get("status", {})
        names |= {found["metadata"]["name"], spec.get("container", ""), spec.get("pod", "")}
        names |= set(status.get("addresses", ()))
    return names - {""}


class _Chosen:
    """Which records are wanted. A line that is not the agent's goes with the one before it."""

    def __init__(self, names: Collection[str], level: Level | None, since: float | None) -> None:
        words = "|".join(re.escape(each) for each in sorted(names, key=len, reverse=True))
        # whole words: 10.0.0.2 is not 10.0.0.20, web-0 not web-01; a container may be shortened
        self._words = re.compile(rf"(?<![\w.:-])(?:{words})(?![\w:-]|\.\w)") if names else None
        self._starts = tuple(each for each in names if re.fullmatch(r"[\w-]{6,}", each))
        self._least = LEVELS.index(level) if level is not None else 0
        self._since = since
        self._last = False

    @property
    def everything(self) -> bool:
        """Whether no line is left out for what it says."""
        return self._words is None and not self._least

    def takes(self, record: Record) -> bool:
        """Whether it is one of them; to be asked in the order of the log."""
        if record.level:
            self._last = (
                LEVELS.index(record.level) >= self._least
                and (self._since is None or (record.time or 0.0) >= self._since)
                and self._is_about(record)
            )
        elif self._since is None and self.everything:
            return True
        return self._last

    def _is_about(self, record: Record) -> bool:
        if self._words is None:
            return True
        texts = (record.message, *record.fields.values())
        parts = (part for name in ABOUT for part in record.fields.get(name, "").split("/"))
        return any(map(self._words.search, texts)) or any(
            part.startswith(self._starts) for part in parts if self._starts
        )


def _past(source: Source, chosen: _Chosen, lines: int | None) -> Iterator[Record]:
    """Of what is there, what was asked for."""
    found = source.past(chosen._since, lines if chosen.everything else None)
    return (record for record in found if chosen.takes(record))


def _last(records: Iterator[Record], lines: int | None) -> Iterable[Record]:
    return records if lines is None else deque(records, maxlen=lines)


def _shower(form: Form | None) -> Callable[[Record], None]:
    if form is Form.JSON:
        return lambda record: echo(_json(record))
    if form is Form.TEXT:
        return lambda record: echo(plain(_text(record)))
    return _Columns().show


class _Columns:
    """TIME, LEVEL, ABOUT, MESSAGE and details; the third widens up to a limit."""

    def __init__(self) -> None:
        self._width = 4

    def show(self, record: Record) -> None:
        """One line, indented where it belongs to the one before."""
        if not record.level:
            echo(f"    {plain(record.message)}")
            return
        about = record.about
        name = next((name for name in ABOUT if record.fields.get(name)), "")
        self._width = max(self._width, min(len(about), WIDEST))
        rest = {key: value for key, value in record.fields.items() if key != name and value}
        details = " ".join(f"{key}={value}" for key, value in rest.items())
        cells = (
            record.stamp,
            coloured(f"{record.level:<7}", _COLOURS[record.level]),
            f"{plain(about) or '-':<{self._width}}",
            plain(record.message),
            plain(details),
        )
        echo(GAP.join(cells).rstrip())


def _text(record: Record) -> str:
    fields = "".join(f" {key}={value}" for key, value in record.fields.items())
    return f"{record.stamp} {record.level} {record.message}{fields}".strip()


def _json(record: Record) -> str:
    known = {"time": record.stamp, "level": record.level, "message": record.message}
    return msgspec.json.encode({**known, **record.fields, **known}).decode()


def _moment(text: str) -> float:
    """`10m` ago, or a time; seconds since 1970. Raises Invalid."""
    if (found := re.fullmatch(r"(\d{1,6})([smhdw])", text)) is not None:
        return time.time() - int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(
            f"--since: {printable(text)} is neither a duration like 10m, 2h or 3d nor a time like "
            "2026-11-25T10:00:00",
            field="--since",
            reason="invalid-argument",
        ) from None
