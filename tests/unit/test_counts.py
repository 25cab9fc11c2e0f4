"""The matrix plugin of tests/conftest.py, driven through pytest itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.matrix(id="T99", full=5000, reduced=7)
def test_something(count):
    print(f"count is {count}")

@pytest.mark.matrix(id="T98", full=10, reduced=1)
def test_absent():
    pytest.skip("needs a thing")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n    matrix(id, full, reduced): x\n")
    pytester.makepyfile(SUITE)
    return pytester


def test_reduced_run_prints_both_counts(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEFT_COUNTS", raising=False)
    result = suite.runpytest("-s")
    result.stdout.fnmatch_lines(["*count is 7*"])
    result.stdout.fnmatch_lines(["T98 *0 *10 *skipped*", "T99 *7 *5,000 *passed*"])
    result.assert_outcomes(passed=1, skipped=1)


def test_full_run_uses_the_counts_of_the_matrix(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_COUNTS", "full")
    suite.runpytest("-s").stdout.fnmatch_lines(["*count is 5000*", "T99 *5,000 *5,000 *passed*"])


def test_unknown_size_is_refused(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_COUNTS", "huge")
    result = suite.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*WEFT_COUNTS=huge: must be one of reduced, full*"])


def test_incomplete_marker_is_refused(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_bad="import pytest\n@pytest.mark.matrix(id='T1', full=3)\ndef test_x(): pass\n"
    )
    assert suite.runpytest().ret == pytest.ExitCode.USAGE_ERROR
