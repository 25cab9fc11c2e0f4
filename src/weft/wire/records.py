"""Lines of the agent's log, read back into records. Pure.

The agent writes text - `TIME level message key=value key="value"` - or one JSON object a line
(`log.format`). What is neither belongs to what came before it: a traceback, the words of a C
library. Written by `agent.events`; read by `weft logs`.
"""

from __future__ import annotations

import json
import re
from calendar import timegm
from datetime import UTC, datetime
from typing import Any

import msgspec

LEVELS = ("debug", "info", "warning", "error")
"""From the least severe."""
ABOUT = ("attachment", "about", "link")
"""Fields that name what a line is about, the most telling first."""

LONGEST = 8192
"""Characters of a message whose fields are looked for; the agent writes nothing near it."""

_LINE = re.compile(
    rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{{1,6}})?Z ({'|'.join(LEVELS)}) (.*)", re.DOTALL
)
_FIELD = re.compile(r' ([a-z_][a-z0-9_]*)=("(?:[^"\\]|\\.)*"|[A-Za-z0-9_./:,@-]+)$')
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r"}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `time` is wall clock, seconds since 1970; `level` "" for a line that is not the
    agent's own; `fields` in their order."""

    time: float | None = None
    level: str = ""
    message: str
    fields: dict[str, str] = {}

    @property
    def about(self) -> str:
        """What it is about, "" where it does not say."""
        return next((self.fields[name] for name in ABOUT if self.fields.get(name)), "")

    @property
    def stamp(self) -> str:
        """The time as RFC 3339 with milliseconds, "" where there is none."""
        if self.time is None:
            return ""
        moment = datetime.fromtimestamp(round(self.time, 3), UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def read_record(line: str) -> Record:
    """The record of a line without its newline; never raises."""
    if line.startswith("{"):
        found = _of_json(line)
        if found is not None:
            return found
    match = _LINE.fullmatch(line)
    if match is None:
        return Record(message=line)
    day, fraction, level, rest = match.groups()
    try:
        whole = timegm(datetime.strptime(day, "%Y-%m-%dT%H:%M:%S").timetuple())
    except ValueError:  # the 31st of February
        return Record(message=line)
    fields: list[tuple[str, str]] = []
    while len(rest) <= LONGEST and (field := _FIELD.search(rest)) is not None:
        fields.append((field[1], _plain(field[2])))
        rest = rest[: field.start()]
    return Record(
        time=whole + float(fraction or 0),
        level=level,
        message=rest,
        fields=dict(reversed(fields)),
    )


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), value[1:-1])


def _of_json(line: str) -> Record | None:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    time, level, message = (found.pop(name, None) for name in ("time", "level", "message"))
    is_time = isinstance(time, int | float) and not isinstance(time, bool) and 0 <= time < 1e11
    if not is_time or level not in LEVELS or not isinstance(message, str):
        return None
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in found.items()
    }
    return Record(time=float(time), level=level, message=message, fields=fields)
