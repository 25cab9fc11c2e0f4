"""The program around the commands: help, exit status, what is imported, what is completed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_run import fake, nobody, run
from fake_agent import Fake

from weft import main as program
from weft.cli import app, client
from weft.cli.help_page import PAGE, helps, page
from weft.cli.names import parse_labels, parse_selector, parse_targets
from weft.model.errors import Invalid
from weft.model.selectors import matches

__all__ = ["fake", "nobody"]

OURS = [path for path, _ in helps() if path.split()[1:2] not in (["lab"], ["conformance"])]


@pytest.fixture(scope="module")
def help_of() -> dict[str, str]:
    return dict(helps())


@pytest.mark.parametrize("path", OURS)
def test_help_teaches_by_examples(path: str, help_of: dict[str, str]) -> None:
    text = help_of[path]
    if path.rsplit(maxsplit=1)[-1] in ("ipam",):
        return  # a group: its commands have the examples
    examples = text.partition("Examples:\n")[2].splitlines()
    assert examples, f"{path} --help has no examples"
    assert any(line.strip().startswith(("weft ", "source ")) for line in examples)


def test_page_of_the_command_line_is_not_stale() -> None:
    assert PAGE.read_text() == page(), "run `python -m weft.cli.help_page`"


def test_help_is_the_same_in_the_program_as_on_the_page(
    monkeypatch: pytest.MonkeyPatch, help_of: dict[str, str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ran = run("describe", "--help")
    assert ran.status == 0
    assert ran.out.strip() == help_of["weft describe"].strip()


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("get",),
        ("get", "pods", "--bogus"),
        ("get", "pods", "-o", "xml"),
        ("completion", "csh"),
        ("label", "pod", "x"),
        ("apply",),
        ("ipam", "release"),
    ],
)
@pytest.mark.usefixtures("nobody")
def test_wrong_usage_is_status_2_and_one_sentence(words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err
    assert "Traceback" not in ran.err


def test_failure_nobody_foresaw_is_a_sentence_and_a_traceback_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(client.Client, "call", broken)
    monkeypatch.delenv("WEFT_DEBUG", raising=False)
    ran = run("status")
    assert ran.status == 1
    assert ran.err.startswith("error: weft failed unexpectedly: ZeroDivisionError: by nought\n")
    assert "Traceback" not in ran.err
    monkeypatch.setenv("WEFT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("status")


def test_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.Client, "call", interrupted)
    ran = run("status")
    assert (ran.status, ran.out) == (130, "")
    assert "Traceback" not in ran.err


def test_bytes_that_are_no_text_are_wrong_usage(fake: Fake) -> None:
    ran = run("get", "attachment", os.fsdecode(b"\xff\xfe"))
    assert ran.status == 2
    assert "UTF-8" in ran.err


def test_agent_that_hangs_up_or_babbles_is_a_fault_of_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import threading

    for said in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"WFT1\x01\x00\x02\x00\x00\x00\x00\x00"):
        path = f"/tmp/weft-test-{os.getpid()}.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            try:
                listener.listen(1)

                def answer(listener: Any = listener, said: bytes = said) -> None:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(said)

                thread = threading.Thread(target=answer)
                thread.start()
                ran = run("--socket", path, "status")
                thread.join(5)
            finally:
                os.unlink(path)
        assert ran.status == 1
        assert ran.err.endswith("hint: weft explain peer-fault\n")


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_agent_is_reached_without_importing_the_command_line() -> None:
    code = (
        "import sys, types\n"
        "stand_in = types.ModuleType('weft.agent.service')\n"
        "stand_in.main = lambda arguments: print(arguments) or 7\n"
        "sys.modules['weft.agent.service'] = stand_in\n"
        "from weft.main import main\n"
        "print(main(['agent', '--config', 'x']))\n"
        "print([m for m in ('typer', 'rich', 'click', 'yaml', 'weft.cli.app') if m in sys.modules])"
    )
    assert _python(code) == "['--config', 'x']\n7\n[]\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from weft.main import main\n"
        "main(['--help'])\n"
        "heavy = ('rich', 'yaml', 'asyncio', 'weft.lab', 'weft.cli.lab', 'weft.cli.conformance')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert _python(code).splitlines()[-1] == "[]"


def test_every_command_of_the_table_is_in_the_help() -> None:
    out = run("--help").out
    for name in (*(name for name, _ in app.COMMANDS), "agent", "ipam", "lab", "conformance"):
        assert f"\n  {name} " in out


def test_targets_have_the_forms_of_kubectl() -> None:
    def shown(*words: str) -> list[tuple[str, str | None]]:
        return [(each.kind.kind, each.name) for each in parse_targets(words)]

    assert shown("po") == [("Pod", None)]
    assert shown("pods,IPPool") == [("Pod", None), ("IPPool", None)]
    assert shown("pod", "a", "b") == [("Pod", "a"), ("Pod", "b")]
    assert shown("pod/a", "ippool/b") == [("Pod", "a"), ("IPPool", "b")]
    for wrong in (("pod/a", "b"), (",",), ("pod/",), ("pod", "")):
        with pytest.raises(Invalid):
            shown(*wrong)


@pytest.mark.parametrize(
    ("text", "labels", "chosen"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b,c", {"a": "x", "c": ""}, True),
        ("a in (x, y),!z", {"a": "y"}, True),
        ("a in (x,y),!z", {"a": "y", "z": "1"}, False),
        ("a notin (x)", {"a": "x"}, False),
        ("!a", {"a": "1"}, False),
    ],
)
def test_selectors_have_the_forms_of_kubectl(
    text: str, labels: dict[str, str], chosen: bool
) -> None:
    assert matches(parse_selector(text), labels) is chosen


@pytest.mark.parametrize("text", ["a in", "a in (", "=b", "a=b,a=c", "a b", "a=b c", "in (x)"])
def test_selector_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_selector(text)


def test_labels_are_set_removed_and_never_both() -> None:
    assert parse_labels(["a=1", "b=", "x/y-"]) == ({"a": "1", "b": ""}, ("x/y",))
    for wrong in ([], ["a=1", "a-"], ["a"]):
        with pytest.raises(Invalid):
            parse_labels(wrong)


def test_program_has_one_door() -> None:
    assert program.main(["--version"]) == 0
