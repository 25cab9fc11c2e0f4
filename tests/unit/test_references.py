"""The generated pages are current, and everything that is raised is explained."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import weft
from weft.cli.references import pages, struct_in
from weft.model.kinds import KINDS
from weft.model.reasons import REASONS
from weft.model.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(weft.__file__).parent


@pytest.mark.parametrize("name", pages())
def test_generated_page_is_current(name: str) -> None:
    on_disk = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert on_disk == pages()[name], "run: python -m weft.cli.references docs/reference"


def reasons_in_source() -> Iterator[tuple[str, str]]:
    """(reason, place) of every literal `reason=` and `default_reason =` below src/weft."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case (
                    ast.keyword(arg="reason", value=ast.Constant(value=str(reason)))
                    | ast.Assign(
                        targets=[ast.Name(id="default_reason")],
                        value=ast.Constant(value=str(reason)),
                    )
                ) if reason:
                    yield reason, f"{path.relative_to(SOURCE)}:{node.value.lineno}"
                case _:
                    pass


def test_every_reason_that_is_raised_is_in_the_catalogue() -> None:
    raised = list(reasons_in_source())
    assert len(raised) > 20
    assert [place for reason, place in raised if reason not in REASONS] == []


def test_defaults_on_the_settings_page_load_as_the_defaults() -> None:
    page = pages()["settings.md"]
    text = page.partition("```yaml\n")[2].partition("```")[0]
    assert load_settings(text) == Settings()


def test_every_field_of_settings_and_kinds_is_described() -> None:
    for name in ("settings.md", "kinds.md"):
        for line in pages()[name].splitlines():
            if line.startswith("| `"):
                assert line.rsplit("|", 2)[1].strip(), line
    assert struct_in(KINDS["IPPool"].struct) is KINDS["IPPool"].struct
