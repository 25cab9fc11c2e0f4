"""Every command that the README and the pages of docs/ show is run, in order, as it stands.

Blocks fenced as `sh` are commands; each is one script run with `-e` on a throw-away machine. The
README starts on a bare machine; a page of docs/ starts where `./dev up` has ended.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from machines import CHECKOUT, machine

README = CHECKOUT / "README.md"
PAGES = sorted((CHECKOUT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
ALL_PAGES = sorted(
    path
    for path in [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
    if not path.is_relative_to(CHECKOUT / "docs" / "adr")
)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def headings(page: Path) -> set[str]:
    """The anchors that a page offers, made as Git hosting sites make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_commands_of_the_readme_work_in_order_and_give_the_machine_back() -> None:
    scripts = blocks(README)
    assert scripts[0].split() == ["./dev", "up"]
    assert scripts[-1].split() == ["./dev", "down"]
    with machine("weft-readme") as box:
        before = box.state()
        for script in scripts:
            done = box.run(["sh", "-euc", script])
            assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        assert box.changes_since(before) == []


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.stem)
def test_commands_of_a_page_work_in_order(page: Path, tmp_path: Path) -> None:
    # what a page's commands write is not to lie about in the checkout
    for entry in CHECKOUT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    with machine("weft-docs") as box:
        assert box.dev("up").returncode == 0
        for script in blocks(page):
            done = box.run(["sh", "-euc", f"cd {tmp_path}\n{script}"])
            assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    shown = re.search(r"^```\n(\./dev test.*)\n```$", README.read_text(), re.MULTILINE)
    assert shown is not None
    entry = CHECKOUT / ".ci" / "run"
    assert os.access(entry, os.X_OK)
    assert entry.read_text().splitlines()[-1].endswith(f"exec {shown[1]}")


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in headings(path), f"{page.name}: {target}{anchor}"


def test_index_of_the_documentation_leads_to_every_page() -> None:
    index = CHECKOUT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text())}
    pages = set((CHECKOUT / "docs").rglob("*.md")) - {index}
    assert {str(page.relative_to(CHECKOUT)) for page in pages - linked} == set()
