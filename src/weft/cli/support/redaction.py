"""What may be shown of what was found. Pure.

Shown is what is known to be harmless: fields of ours with a form of their own, known keys of a
network configuration, log lines that the agent wrote. What people may fill as they like - values
of labels and annotations, notes, unknown keys - becomes a token, the same one for the same value,
so that equal ones can still be seen to be equal. Each value that was hidden once is hidden in
every text too, wherever it turns up again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

FREE = frozenset(
    {"labels", "annotations", "matchlabels", "values", "reservations", "args", "env", "value"}
)
"""Keys, in lower case, below which every string is hidden."""
CONFIGURATION = frozenset({"cniVersion", "cniVersions", "disableCheck", "disableGC", "mtu"})
"""Keys of a network configuration whose values are shown; `type` anywhere, `name` at the top."""
SHORTEST, WORD = 6, 14
"""A hidden value this long is looked for in texts; one of small letters alone, which may be a word
that texts use as well, if it is longer than words are."""
MOST = 5000

_NAME = re.compile(r"(?=.{1,64}\Z)[A-Za-z](?:[0-9]?[A-Za-z_./-])*[0-9]{0,2}")
_TYPE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_WORDS = (
    r"pass(?:word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|preshared[_-]?key|"
    r"access[_-]?key|credentials?|authorization|auth|cookie|bearer|kubeconfig"
)
_SECRET_KEY = re.compile(rf"(?:{_WORDS})", re.IGNORECASE)
_PATTERNS = (
    re.compile(r"-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s@'\"]+(?=@)"),
    re.compile(
        rf"(?i)(?<![a-z0-9])[\w-]*(?:{_WORDS})[\w-]*[\"']?\s*[=:]\s*(?:(?:bearer|basic)\s+)?"
        r"(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
    ),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9._-]+"),
    re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}="),
    re.compile(r"(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[A-Z])(?=[\w+/=-]*[0-9])[\w+=-]{24,}"),
)
_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (?:debug|info|warning|error) .*")
_STACK = re.compile(
    r"Traceback \(most recent call last\):|\s+File \"[^\"]*\", line \d+(?:,)? in \S+|"
    r"(?:Current thread|Thread) 0x[0-9a-f]+.*|Fatal Python error: .*"
)


class Redactor:
    """Hides, and remembers what it has hidden. `salt`: of this archive alone."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._hidden: set[str] = set()

    def token(self, value: object) -> str:
        """What stands for a hidden value."""
        text = value if isinstance(value, str) else json.dumps(value)
        if _is_telling(text) and len(self._hidden) < MOST:
            self._hidden.add(text)
        digest = hashlib.blake2b(text.encode(errors="replace"), key=self._salt, digest_size=4)
        return f"<redacted:{digest.hexdigest()}>"

    def tree(self, value: Any, *, free: bool = False) -> Any:
        """Data of ours: everything, but nothing that people fill as they like."""
        match value:
            case dict():
                return {
                    str(key): self.token(inner)
                    if isinstance(inner, str) and inner and _SECRET_KEY.fullmatch(str(key))
                    else self.tree(inner, free=free or str(key).lower() in FREE)
                    for key, inner in value.items()
                }
            case list() | tuple():
                return [self.tree(inner, free=free) for inner in value]
            case str():
                return self.token(value) if free and value else self.text(value)
            case bytes():
                return value.hex(":") if len(value) <= 8 else f"<{len(value)} octets>"
            case _:
                return value

    def configuration(self, value: Any, depth: int = 0) -> Any:
        """A network configuration, of anybody's plugin: its shape, and what is known of it."""
        match value:
            case dict():
                return {
                    self._key(key): self._member(key, inner, depth) for key, inner in value.items()
                }
            case list():
                return [self.configuration(inner, depth) for inner in value]
            case bool() | None:
                return value
            case _:
                return self.token(value)

    def _key(self, key: str) -> str:
        return key if _NAME.fullmatch(key) and not _mixed(key) else self.token(key)

    def _member(self, key: str, inner: Any, depth: int) -> Any:
        if key in CONFIGURATION and depth <= 1:
            return inner if _is_plain(inner) else self.configuration(inner, depth + 1)
        is_told = key == "type" or (key == "name" and depth == 0)
        if is_told and isinstance(inner, str) and _TYPE.fullmatch(inner):
            return inner
        return self.configuration(inner, depth + 1)

    def text(self, text: str) -> str:
        """A text of ours without what looks like a secret."""
        for pattern in _PATTERNS:
            text = pattern.sub("<redacted>", text)
        return text

    def log(self, text: str) -> str:
        """The lines that the agent wrote, and of others only how many there were."""
        lines: list[str] = []
        foreign = 0
        for line in text.splitlines():
            if _LINE.fullmatch(line) or _STACK.fullmatch(line) or _is_record(line):
                lines.append(self.text(line))
            else:
                foreign += 1
        return "\n".join([*lines, f"({foreign} lines that are not the agent's were left out)", ""])

    def finish(self, text: str) -> str:
        """The text without any value that was hidden anywhere else."""
        if not self._hidden:
            return text
        longest_first = sorted(self._hidden, key=len, reverse=True)
        words = "|".join(re.escape(each) for each in longest_first)
        return re.sub(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", "<redacted>", text)


def _is_telling(text: str) -> bool:
    """Whether a value is looked for elsewhere: no short one, no number, no address, and no word
    that texts of ours use as well."""
    if len(text) < SHORTEST or re.fullmatch(r"[0-9a-f.:/]*", text):
        return False
    return len(text) >= WORD or re.fullmatch(r"[a-z]*", text) is None


def _mixed(key: str) -> bool:
    return len(key) >= 24 and any(pattern.search(key) for pattern in _PATTERNS)


def _is_plain(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(
        isinstance(each, bool | int) or (isinstance(each, str) and _is_version(each))
        for each in values
    )


def _is_version(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(?:\.[0-9]+){0,2}", text) is not None


def _is_record(line: str) -> bool:
    """Whether it is a line of `log.format: json`."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"time", "level", "message"} <= found.keys()
