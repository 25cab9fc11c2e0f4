"""Tables, ages, colours: how things look in a terminal and in a pipe.

Columns are aligned with three spaces between them and no borders, as kubectl prints them, so
that `awk` and people read the same text. Colour only in a terminal, and not with NO_COLOR
(no-color.org). Whatever others wrote is made harmless before it reaches a terminal.
"""

from __future__ import annotations

import os
import sys
import time
from calendar import timegm
from collections.abc import Sequence

GAP = "   "
_COLOURS = {"ok": "32", "warn": "33", "bad": "31", "bold": "1"}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, header: bool = True) -> str:
    """The rows as aligned lines; the last column is not padded."""
    lines = [[plain(cell) or "-" for cell in row] for row in rows]
    if header:
        lines.insert(0, list(headings))
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings) - 1)]
    return "\n".join(
        GAP.join(
            [*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]]
        )
        for line in lines
    )


def plain(text: str) -> str:
    """Text without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def age(timestamp: str, now: float | None = None) -> str:
    """How long ago a Kubernetes timestamp was, e.g. `5m`, or `-` where there is none."""
    try:
        then = timegm(time.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return "-"
    return span((time.time() if now is None else now) - then)


def span(seconds: float) -> str:
    """A duration in the one or two units that matter, as kubectl shortens it."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 2:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d"


def has_colour() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def coloured(text: str, colour: str) -> str:
    """The text in one of ok, warn, bad, bold - where colour is wanted."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colour() else text


def count_of(prefix: str, size: int) -> str:
    """A number of addresses: exact up to 2^32, a power of two beyond."""
    if size <= 1 << 32:
        return str(size)
    address, _, length = prefix.partition("/")
    if not length.isdigit():
        return str(size)
    return f"2^{(128 if ':' in address else 32) - int(length)}"
