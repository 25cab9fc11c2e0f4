"""`weft logs`: lines are read back as they were written, chosen, and followed through rotation."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from cli_run import fake, nobody, run
from fake_agent import Fake
from hypothesis import given
from hypothesis import strategies as st

from weft.agent.events import Log
from weft.cli import log_sources, logs
from weft.cli.log_sources import LogFile
from weft.wire.records import Record, read_record

__all__ = ["fake", "nobody"]

BEGIN = 1_767_225_600  # 2026-01-01T00:00:00Z


def written(style: str, message: str, fields: dict[str, str]) -> str:
    out = io.StringIO()
    with redirect_stderr(out):
        Log(style=style).line("warning", message, **fields)
    return out.getvalue().removesuffix("\n")


@given(
    style=st.sampled_from(["text", "json"]),
    message=st.text(alphabet="abc ADD:/=.", max_size=20).filter(lambda text: "=" not in text),
    fields=st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
            lambda name: name not in ("time", "level", "message", "self")
        ),
        st.text(alphabet='ab "\\\n\r=é/', max_size=12),
        max_size=4,
    ),
)
def test_what_the_agent_writes_is_read_back(
    style: str, message: str, fields: dict[str, str]
) -> None:
    found = read_record(written(style, message, fields))
    assert (found.level, found.message, found.fields) == ("warning", message, fields)
    assert found.time is not None and abs(found.time - time.time()) < 60


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Traceback (most recent call last):",
        "2026-01-01T00:00:00.000Z shouting at you",
        "2026-02-31T00:00:00.000Z info a day that there is not",
        '{"time": 1}',
        '{"time": "now", "level": "info", "message": "x"}',
        "{" * 5000,
        "[" * 100_000,
        "{" + "[" * 100_000,
    ],
)
def test_line_of_somebody_else_stays_what_it_is(line: str) -> None:
    assert read_record(line) == Record(message=line)


def test_long_line_is_read_in_no_time() -> None:
    began = time.monotonic()
    found = read_record("2026-01-01T00:00:00Z info " + ' a="' * 250_000)
    assert found.level == "info"
    assert time.monotonic() - began < 2


LINES = """\
2026-01-01T00:00:00.000Z info Started reason=Started about=node
2026-01-01T00:00:01.000Z info ADD attachment=weft/c1abcdef99/eth0 outcome=ok ms=1.5
2026-01-01T00:00:02.500Z error "broken" attachment=weft/c2/eth0
Traceback (most recent call last):
  ValueError: x
{"time": 1767225603.25, "level": "warning", "message": "taken", "about": "10.0.0.20"}
2026-01-01T00:00:04.000Z debug looked at link=wf123 note="two words"
"""


@pytest.fixture
def log(tmp_path: Path, nobody: Path) -> Path:
    path = tmp_path / "agent.log"
    path.write_text(LINES)
    return path


def messages(log: Path, *words: str) -> list[str]:
    ran = run("logs", "--file", str(log), "-o", "json", *words)
    assert ran.status == 0, ran.err
    return [json.loads(line)["message"] for line in ran.out.splitlines()]


def test_table_has_columns_and_keeps_stacks_with_their_line(log: Path) -> None:
    assert run("logs", "--file", str(log)).out.splitlines() == [
        "2026-01-01T00:00:00.000Z   info      node   Started   reason=Started",
        "2026-01-01T00:00:01.000Z   info      weft/c1abcdef99/eth0   ADD   outcome=ok ms=1.5",
        '2026-01-01T00:00:02.500Z   error     weft/c2/eth0           "broken"',
        "    Traceback (most recent call last):",
        "      ValueError: x",
        "2026-01-01T00:00:03.250Z   warning   10.0.0.20              taken",
        "2026-01-01T00:00:04.000Z   debug     wf123                  looked at   note=two words",
    ]
    assert run("logs", "--file", str(log), "-o", "text").out == LINES.replace(
        "00:00Z", "00:00.000Z"
    ).replace(
        '{"time": 1767225603.25, "level": "warning", "message": "taken", "about": "10.0.0.20"}',
        "2026-01-01T00:00:03.250Z warning taken about=10.0.0.20",
    ).replace("  ValueError", "ValueError").replace('"two words"', "two words")


STACK = ["Traceback (most recent call last):", "  ValueError: x"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--level", "warning"), ['"broken"', *STACK, "taken"]),
        (("-n", "2"), ["taken", "looked at"]),
        (("-n", "0"), []),
        (("c1abcd",), ["ADD"]),
        (("c1",), []),  # too short for the beginning of an id
        (("weft/c2/eth0",), ['"broken"', *STACK]),
        (("10.0.0.2",), []),
        (("10.0.0.20", "wf123"), ["taken", "looked at"]),
        (("--since", "2026-01-01T00:00:03"), ["taken", "looked at"]),
        (("--since", "2026-01-01T01:00:02.5+01:00"), ['"broken"', *STACK, "taken", "looked at"]),
        (("--since", "1h"), []),
        (("nothing",), []),
    ],
)
def test_lines_are_chosen(log: Path, words: tuple[str, ...], expected: list[str]) -> None:
    assert messages(log, *words) == expected


@pytest.mark.parametrize("when", ["yesterday", "10", "", "-5m", "9999999m", "2026-13-01"])
def test_time_that_is_none_is_refused(log: Path, when: str) -> None:
    ran = run("logs", "--file", str(log), "--since", when)
    assert ran.status == 2
    assert "--since" in ran.err


def test_attached_pod_is_found_by_its_other_names(fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    made = fake.attach("c77", pod="shop/web", address="10.244.0.9")
    path.write_text(
        f"2026-01-01T00:00:00Z info one attachment={made.key}\n"
        "2026-01-01T00:00:00Z info two attachment=weft/other/eth0\n"
        f"2026-01-01T00:00:00Z info three link={made.host_link}\n"
        "2026-01-01T00:00:00Z info four address=10.244.0.9\n"
        "2026-01-01T00:00:00Z info five address=10.244.0.90\n"
    )
    assert messages(path, "shop/web") == ["one", "three", "four"]


@pytest.mark.usefixtures("nobody")
def test_log_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "none", fifo):
        ran = run("logs", "--file", str(path))
        assert (ran.status, ran.out) == (1, "")
        assert str(path) in ran.err
    monkeypatch.setattr(log_sources, "LOG", tmp_path / "none")
    monkeypatch.setattr(log_sources.programs, "find", lambda _: None)
    assert "--file" in run("logs").err
    (tmp_path / "none").write_text(LINES)
    assert run("logs").out.count("\n") == 7
    (tmp_path / "none").write_text("")
    assert run("logs").err == "No lines.\n"


def test_file_is_followed_through_rotation_and_cutting(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    steps: list[Callable[[], object]] = [
        lambda: append("one\nhal"),
        lambda: append("f\n"),
        lambda: log.rename(log.with_suffix(".1")),
        lambda: log.write_text("of the new one\n"),
        lambda: log.write_text("cut\n"),
    ]

    def sleep(_seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr(log_sources.time, "sleep", sleep)
    ran = run("logs", "--file", str(log), "-f", "-n", "1", "-o", "json")
    told = [json.loads(line)["message"] for line in ran.out.splitlines()]
    assert told == ["looked at", "one", "half", "of the new one", "cut"]
    assert ran.status == 130


def test_of_a_large_file_only_the_end_is_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sources, "LARGEST", 200)
    found = list(LogFile(log).past(None, None))
    assert [each.message for each in found][-2:] == ["taken", "looked at"]
    assert 2 <= len(found) < 7


def test_no_level_is_without_a_colour() -> None:
    assert {str(level) for level in logs.Level} == set(logs._COLOURS)


def test_nothing_of_a_log_reaches_the_terminal_as_a_command(log: Path) -> None:
    log.write_text('2026-01-01T00:00:00Z info \x1b[2J note="\x1b[1m"\n\x1b]0;x\x07\n')
    for form in ((), ("-o", "text"), ("-o", "json")):
        assert "\x1b" not in run("logs", "--file", str(log), *form).out
