"""The reference page of the replays, from their data: `docs/reference/runtimes.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from weft.lab.replay import forms
from weft.lab.replay.persona import Call, Persona
from weft.lab.replay.table import PERSONAS

_STDIN = {
    "libcni": "as libcni writes it: keys sorted, `capabilities` kept, no blanks",
    "mesos": "a regular file: the configuration with Mesos' part of `args`, the same at DEL",
    "python": "Python's: the file's order, then `cniVersion` and `name`",
    "file": "the file as it is",
}


def page() -> str:
    """The whole page but for the remark that it is generated."""
    lines = [
        "# Runtimes, call by call",
        "",
        "What `weft lab replay` does under each name: where the runtime looks, what it puts into",
        "environment and standard input, in which order it calls, and which public source says so.",
        "Texts in braces are the container's: `{uuid}`, `{hex64}`, `{pid}`, and `{container}`, its",
        "ID as this runtime makes it; `{ip4}` is an address that nobody has. How to set them up:",
        "[runtimes](../runtimes.md).",
    ]
    for persona in PERSONAS.values():
        lines += ["", *_section(persona)]
    return "\n".join(lines) + "\n"


def _section(persona: Persona) -> Iterator[str]:
    yield f"## `{persona.name}`: {persona.title}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for what, text in _facts(persona):
        yield f"| {what} | {text} |"
    yield ""
    yield from (f"{number}. {step.says}" for number, step in enumerate(persona.steps, 1))
    yield ""
    yield from (
        f"- {source.repository}, `{source.path}`: {source.what}" for source in persona.sources
    )


def _facts(persona: Persona) -> Iterator[tuple[str, str]]:
    yield "configuration", _code(persona.conf_file)
    bins = [
        _code(each) + (" (here)" if number == persona.placed and len(persona.bins) > 1 else "")
        for number, each in enumerate(persona.bins)
    ]
    yield "plugins in", ", ".join(bins)
    yield "version", persona.version or "none: 0.1.0"
    yield "container ID", _code(persona.container)
    yield "namespace", _code(persona.netns)
    yield "interfaces", ", ".join(map(_code, persona.ifnames))
    yield "own environment", _code(" ".join(sorted(persona.env))) if persona.env else "none"
    yield "CNI variables", _code(" ".join(persona.variables))
    if persona.args:
        yield "CNI_ARGS", _code(";".join("=".join(pair) for pair in persona.args))
    yield "standard input", _STDIN[persona.stdin]
    if persona.capabilities:
        yield "capabilities", _code(_compact(persona.capabilities))
    if persona.ungated:
        yield "put in whatever is declared", _code(_compact(persona.ungated))
    if persona.at_once:
        yield "networks in parallel at", ", ".join(persona.at_once)
    yield "gives up after", f"{persona.limit:.0f} s"
    yield "reads the result as", f"`{persona.reads}`"


def _compact(value: object) -> str:
    return forms.go(value).decode()


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


def row(persona: Persona) -> str:
    """The runtime's line in the table of `docs/runtimes.md`."""
    verbs = [step.verb for step in persona.steps if isinstance(step, Call)]
    cells = (
        _code(persona.name),
        persona.title,
        _code(persona.conf_file),
        _code(persona.bins[persona.placed]),
        persona.version or "none",
        ", ".join(verbs),
    )
    return f"| {' | '.join(cells)} |"


def configuration(persona: Persona) -> str:
    """The configuration's file, for copying."""
    return json.dumps(forms.configured(persona, "weft")[0], indent=2)
