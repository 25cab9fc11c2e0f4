"""`weft lab replay`: what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_run import run

LIST = '{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "x"}]}'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "runtimes: crio, openshift"),
        (("-o", "yaml"), "must be table or json"),
        (("--bin", "/x"), "--conflist and --bin belong together"),
        (("--conflist", "{list}"), "--conflist and --bin belong together"),
        (("--setup", "true"), "give --conflist"),
        (("--conflist", "/nope", "--bin", "/x"), "/nope: No such file"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    listed = tmp_path / "list"
    listed.write_text(LIST)
    status, _, text = run("lab", "replay", *(str(listed) if w == "{list}" else w for w in words))
    assert status == 1
    assert said in text


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    status, _, text = run("lab", "replay")
    assert status == 1
    assert "run this as root" in text
