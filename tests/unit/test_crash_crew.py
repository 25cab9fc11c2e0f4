"""Players in processes of their own: questions, answers, and what becomes of one that fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import TracebackType

import pytest

from weft.lab.crash.crew import Crew
from weft.model.errors import WeftError


class _Echo:
    """Answers with the question, its number and its process; leaves a file when it ends well."""

    def __init__(self, number: int, place: Path) -> None:
        self.number = number
        self._place = place

    def __enter__(self) -> _Echo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (self._place / f"given-back-{self.number}").touch()

    def answer(self, asked: bytes) -> bytes:
        if asked == b"fail":
            raise ValueError("no such thing")
        if asked == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        return asked + b" %d" % self.number


def _given_back(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_every_question_is_answered_once_and_every_stage_given_back(tmp_path: Path) -> None:
    asked = [b"%d" % number for number in range(50)]
    with Crew(3, lambda number: _Echo(number, tmp_path)) as crew:
        answers = dict(crew.play(asked))
        again = dict(crew.play(asked[:2]))
    assert {number: words.split()[0] for number, words in answers.items()} == dict(enumerate(asked))
    assert {words.split()[1] for words in answers.values()} <= {b"0", b"1", b"2"}
    assert len(again) == 2
    assert _given_back(tmp_path) == {f"given-back-{number}" for number in range(3)}


def test_a_player_that_fails_ends_the_play_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(WeftError, match=r"(?s)could not go on.*no such thing"),
        Crew(2, lambda number: _Echo(number, tmp_path)) as crew,
    ):
        list(crew.play([b"1", b"fail", b"2", b"3"]))
    assert _given_back(tmp_path) == {"given-back-0", "given-back-1"}


def test_a_player_that_dies_is_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(WeftError, match="has died"),
        Crew(2, lambda number: _Echo(number, tmp_path)) as crew,
    ):
        list(crew.play([b"die", b"1", b"2"]))
