"""What happened lately, and the log: structured lines on standard error.

An event is a log line that is also kept, bounded, for `weft get events` and `weft status`. Log
lines are `key=value` text or JSON; no line ever holds standard input or an environment, which may
carry secrets.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections import Counter, deque

import msgspec

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SIMPLE = re.compile(r"[A-Za-z0-9_./:,@-]+")
_PLAIN = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", '"': '\\"'})


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event: `reason` is a short CamelCase word, as Kubernetes has it."""

    time: float  # wall clock, for display
    level: str
    reason: str
    about: str  # attachment, link, pool or "node"
    message: str
    count: int = 1


class Log:
    """Writes lines and keeps the last events; repeated events are counted, not repeated."""

    def __init__(self, level: str = "info", style: str = "text", keep: int = 500) -> None:
        self._threshold = _LEVELS.get(level, 20)
        self._json = style == "json"
        self.events: deque[Event] = deque(maxlen=keep)
        self.counts: Counter[tuple[str, str]] = Counter()  # by level and reason

    def line(self, level: str, message: str, **fields: object) -> None:
        """One structured line, if the level is high enough."""
        if _LEVELS[level] < self._threshold:
            return
        moment = time.time()
        if self._json:
            record = {"time": moment, "level": level, "message": message, **fields}
            text = msgspec.json.encode(record, enc_hook=str).decode()
        else:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
            tail = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
            text = f"{stamp}.{int(moment * 1000) % 1000:03d}Z {level} {message}{tail}"
        # a full disk or a closed terminal must not stop the network
        with contextlib.suppress(OSError):
            sys.stderr.write(text + "\n")

    def event(self, level: str, reason: str, about: str, message: str) -> None:
        """Keep an event and log it; the same event again only raises its count."""
        self.counts[level, reason] += 1
        last = self.events[-1] if self.events else None
        now = time.time()
        if last is not None and (last.reason, last.about, last.message) == (reason, about, message):
            self.events[-1] = msgspec.structs.replace(last, time=now, count=last.count + 1)
            return
        self.events.append(
            Event(time=now, level=level, reason=reason, about=about, message=message)
        )
        self.line(level, message, reason=reason, about=about)


def _quoted(value: object) -> str:
    text = str(value)
    if _SIMPLE.fullmatch(text):
        return text
    return '"' + text.translate(_PLAIN) + '"'
