"""Runtimes' settings: TOML files, one laid over the other.

What has not the type that the runtime expects is a problem that names file and key: the runtime
would not start with it, so nobody can tell where it looks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from weft.cni.runtimes.found import Tree

Table = dict[str, Any]


class Unreadable(Exception):
    """Settings that a runtime could not read either; the text names file and key."""


def load(tree: Tree, path: str) -> Table:
    """The table of a file; empty where there is no file."""
    text = tree.text(path)
    if text is None:
        return {}
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Unreadable(f"{path} is no TOML: {error}") from error


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """Tables are merged key by key, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        present = merged.get(key)
        both = isinstance(present, dict) and isinstance(value, dict)
        merged[key] = laid_over(present, value) if both else value  # type: ignore[arg-type]  # dicts
    return merged


def table(source: Mapping[str, Any], *keys: str) -> Table:
    """A table inside; empty where there is none."""
    found: Any = source
    for at, key in enumerate(keys):
        found = found.get(key, {})
        if not isinstance(found, dict):
            raise Unreadable(f"{'.'.join(keys[: at + 1])} must be a table")
    return dict(found)


def text(source: Mapping[str, Any], key: str, default: str = "") -> str:
    """A string; the default also where it is empty, as runtimes have it."""
    value = source.get(key, "")
    if not isinstance(value, str):
        raise Unreadable(f"{key} must be a string")
    return value or default


def texts(source: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of strings."""
    value = source.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Unreadable(f"{key} must be a list of strings")
    return tuple(each for each in value if each)


def number(source: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number."""
    value = source.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unreadable(f"{key} must be a whole number")
    return value
