"""The hook of an OCI runtime, as configurations say it: a container's own, and those of hooks.d.

The hook is the launcher itself, with a word before its options; native/launcher/hook.c reads them.
One and the same hook stands at both stages, because the container's state tells which it is.
Sources: the OCI's runtime-spec, config.md, "POSIX-platform Hooks"; oci-hooks(5), schema 1.0.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from weft.cni import install
from weft.kernel import files
from weft.model.errors import Invalid, NotFound

WORD = "oci-hook"
NETWORK = "weft"
IFNAME = "eth0"
ANNOTATION = "weft.dev/network"
STAGES = ("createRuntime", "poststop")
OLDER = "prestart"
"""What runtimes before version 1.0.2 of the specification know in place of the first."""
_LARGEST = 16 * 1024 * 1024


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook is to do; `conf`: the network's file, where it is not found by its name."""

    launcher: str
    network: str = NETWORK
    conf: str = ""
    ifname: str = IFNAME

    def entry(self) -> dict[str, Any]:
        """Path and arguments. The network is named beside its file: to detach, no file is read."""
        args = ["weft", WORD, "--network", self.network]
        args += ["--conf", self.conf] if self.conf else []
        args += ["--ifname", self.ifname] if self.ifname != IFNAME else []
        return {"path": self.launcher, "args": args}

    def of_container(self) -> dict[str, Any]:
        """The part of a container's config.json."""
        return {"hooks": {stage: [self.entry()] for stage in STAGES}}

    def of_directory(self) -> dict[str, Any]:
        """A file of hooks.d: for containers whose annotation names the network."""
        return {
            "version": "1.0.0",
            "hook": self.entry(),
            "when": {"annotations": {_exactly(ANNOTATION): _exactly(self.network)}},
            "stages": list(STAGES),
        }


def _exactly(text: str) -> str:
    """A pattern that only the text matches."""
    return "^" + re.sub(r"[.+]", r"\\\g<0>", text) + "$"


def find_launcher() -> str:
    """The launcher that `weft install` placed; raises NotFound."""
    found = install.find_launchers(map(Path, install.DIRECTORIES))
    if not found:
        raise NotFound(
            f"no launcher is in {', '.join(install.DIRECTORIES)}; run `weft install`, or name one "
            "by --launcher"
        )
    return str(found[0])


def write_into(path: Path, hook: Hook) -> bool:
    """The hook in a container's config.json, the rest untouched; False: it was there already.

    A hook of ours for the same interface is replaced, also at the first stage's older name: at
    both it would attach the container twice. Raises Invalid for what is no such file.
    """
    text = files.read(path, _LARGEST, linked=True)
    config = _read(text, path)
    hooks = config["hooks"] = {} if config.get("hooks") is None else config["hooks"]
    if not isinstance(hooks, dict):
        raise _invalid(path, "hooks: expected an object")
    older = any(_is_ours(each, hook.ifname) for each in _standing(hooks, OLDER, path))
    for stage in (OLDER, *STAGES[1:]) if older else STAGES:
        standing = _standing(hooks, stage, path)
        others = [each for each in standing if not _is_ours(each, hook.ifname)]
        place = next((n for n, each in enumerate(standing) if _is_ours(each, hook.ifname)), None)
        others.insert(len(others) if place is None else place, hook.entry())
        hooks[stage] = others
    if json.loads(text) == config:
        return False
    try:
        made = (json.dumps(config, indent="\t", ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError as error:
        raise _invalid(path, f"half of a character: {error.reason}") from None
    files.replace(path.resolve(), made, path.stat().st_mode & 0o777, durable=True)
    return True


def _standing(hooks: dict[str, Any], stage: str, path: Path) -> list[Any]:
    standing = hooks.get(stage)
    if not isinstance(standing, list | None):
        raise _invalid(path, f"hooks.{stage}: expected a list")
    return standing or []


def _read(text: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, str(error)) from None
    if not isinstance(found, dict) or "ociVersion" not in found:
        raise _invalid(path, "not the configuration of an OCI container: no ociVersion")
    return found


def _is_ours(entry: object, ifname: str) -> bool:
    args = entry.get("args") if isinstance(entry, Mapping) else None
    if not isinstance(args, list) or args[1:2] != [WORD]:
        return False
    found = IFNAME
    for word, following in zip_longest(args[2:], args[3:]):
        if word == "--ifname" and following is not None:
            found = following
        elif isinstance(word, str) and word.startswith("--ifname="):
            found = word.removeprefix("--ifname=")
    return found == ifname


def _invalid(path: Path, why: str) -> Invalid:
    return Invalid(f"{path}: {why}", field="FILE")
