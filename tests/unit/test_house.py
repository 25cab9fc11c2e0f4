"""The walls that an import linter cannot see: purity, sizes, names, docstrings.

Every rule here is stated in ARCHITECTURE.md. A rule that stops making sense is changed there and
here in one commit; it is never switched off for one file.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "weft"

PURE_ROOMS = ("model", "rows", "wire", "ipam", "fabric", "firewalls", "render")
DOORS = ("cli", "cni", "lab", "upgrade")
"""Programs of their own, which may wait as they like."""
EFFECTS = frozenset(
    {
        *("socket", "asyncio", "os", "subprocess", "time"),
        *("select", "selectors", "threading", "multiprocessing", "ctypes", "random", "secrets"),
    }
)
LONGEST_FILE = 500
MEDIAN_FILE = 170
LONGEST_FUNCTION = 59
MOST_PARAMETERS = 7
EMPTY_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "misc"})
ROOT_ENTRIES = 16

FUNCTION_NODES = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def sources() -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(SRC.rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(sources()[path], filename=str(path))


def imported_modules(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def impure_imports(module: ast.Module) -> list[tuple[int, str]]:
    return [(line, name) for line, name in imported_modules(module) if name in EFFECTS]


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, FUNCTION_NODES):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    spec = function.args
    named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    return len([each for each in named if each.arg not in {"self", "cls"}])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_room_of_the_thinking_wing_or_ground_floor_imports_no_effects(room: str) -> None:
    guilty = [
        f"{named(path)}:{line} imports {name}"
        for path in sources()
        if path.relative_to(SRC).parts[0] in {room, f"{room}.py"}
        for line, name in impure_imports(tree(path))
    ]
    assert guilty == []
    assert (SRC / room).is_dir()


def test_nothing_that_the_agent_runs_sleeps_on_its_loop() -> None:
    """`asyncio.sleep` lets others work; `time.sleep` holds everybody."""
    guilty = [
        f"{named(path)}:{node.lineno}"
        for path in sources()
        if path.relative_to(SRC).parts[0] not in DOORS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and not (isinstance(node.value, ast.Name) and node.value.id == "asyncio")
    ]
    assert guilty == []


def test_purity_rule_sees_every_way_of_importing_an_effect() -> None:
    text = "import os.path\nfrom time import monotonic\ndef f():\n    import socket as s\n"
    assert [name for _, name in impure_imports(ast.parse(text))] == ["os", "time", "socket"]


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {named(path): text.count("\n") for path, text in sources().items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_median_file_is_short() -> None:
    lengths = [text.count("\n") for text in sources().values() if text.strip()]
    assert statistics.median(lengths) <= MEDIAN_FILE


def test_functions_are_short_and_take_few_parameters() -> None:
    guilty = []
    for path in sources():
        for function in functions(tree(path)):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > LONGEST_FUNCTION or parameters(function) > MOST_PARAMETERS:
                guilty.append(
                    f"{named(path)}:{function.lineno} {function.name}: "
                    f"{lines} lines, {parameters(function)} parameters"
                )
    assert guilty == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {(named(path), part) for path in sources() for part in path.relative_to(SRC).parts}
    assert [name for name, part in parts if part.removesuffix(".py") in EMPTY_NAMES] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        named(path)
        for path, text in sources().items()
        if text.strip() and not ast.get_docstring(tree(path))
    ]
    assert silent == []


def test_root_holds_few_entries() -> None:
    # What git would show a visitor: neither what is ignored nor directories without a file.
    ignored = {line.strip("/\n ") for line in (ROOT / ".gitignore").read_text().splitlines()}
    entries = sorted(
        entry.name
        for entry in ROOT.iterdir()
        if entry.name not in {*ignored, ".git"}
        and entry.suffix != ".egg-info"
        and (entry.is_file() or any(each.is_file() for each in entry.rglob("*")))
    )
    assert len(entries) <= ROOT_ENTRIES, entries
