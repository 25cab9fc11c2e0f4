"""What shells are told, and what a real bash makes of it at a terminal."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_run import fake, nobody, run
from fake_agent import Fake

from weft.cli import completion
from weft.wire.api import AddressUse, IpamShow

__all__ = ["fake", "nobody"]

PATIENCE = 20.0


def words(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that fit a line up to the cursor."""
    with monkeypatch.context() as patch:
        patch.setitem(os.environ, completion.VARIABLE, "words")
        patch.setitem(os.environ, completion.LINE, line)
        ran = run()
    assert (ran.status, ran.err) == (0, "")
    return [each.partition("\t")[0] for each in ran.out.splitlines()]


@pytest.fixture
def peopled(fake: Fake) -> Fake:
    """An agent with pods of three namespaces, and addresses in use."""
    fake.attach("c1", pod="shop/web-0", address="10.244.0.5")
    fake.attach("c2", pod="data/db-0", address="10.244.0.6")
    used = (AddressUse(address=each, pool="p", state="used") for each in ("fd00::5", "fd00::16"))
    fake.use = IpamShow(node="node-a", addresses=tuple(used))
    run("label", "pod", "web-1", "a=b")
    run("label", "pod", "cart", "-n", "shop", "a=b")
    return fake


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("weft des", ["describe"]),
        ("weft get att", ["attachments"]),
        ("weft get con", ["connections"]),
        ("weft get 'att", ["attachments"]),
        ("weft get pods ", ["web-1"]),
        ("weft get pods -n shop ", ["cart"]),
        ("weft get pods -A ", ["cart", "web-1"]),
        ("weft get pod/w", ["pod/web-1"]),
        ("weft get pods -n ", ["data", "default", "shop"]),
        ("weft get connections ", ["data/db-0", "shop/web-0"]),
        ("weft get connections w", ["web-0"]),
        ("weft get -n shop connections ", ["shop/web-0", "web-0"]),
        ("weft get connections --po", ["--port"]),
        ("weft logs d", ["data/db-0", "db-0"]),
        ("weft ipam release fd00::1", ["fd00::16"]),
        ("weft label pod ", ["web-1"]),
        ("weft explain exh", ["exhausted"]),
        ("weft completion ", ["bash", "zsh", "fish"]),
        ("weft logs --file ", []),
        ("weft get nothing ", []),
        ("weft --socket /nowhere get pods ", []),
    ],
)
@pytest.mark.usefixtures("peopled")
def test_words_that_fit(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(line, monkeypatch) == expected


@pytest.mark.usefixtures("nobody")
def test_without_an_agent_there_are_words_but_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("weft get pods w", monkeypatch) == []
    assert words("weft get po", monkeypatch) == ["pods", "ports"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [""]),
        ("weft", ["weft"]),
        ("weft ", ["weft", ""]),
        ("weft  a 'b c", ["weft", "a", "b c"]),
        ("weft a\\ b # c", ["weft", "a b", "#", "c"]),
        ("weft fd00::1", ["weft", "fd00::1"]),
    ],
)
def test_lines_are_split_as_shells_do(line: str, expected: list[str]) -> None:
    assert completion.split(line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_speak_the_protocol_and_evaluate_nothing(shell: str) -> None:
    script = run("completion", shell).out
    assert f"{completion.VARIABLE}=words" in script
    assert f"{completion.LINE}=" in script
    assert "eval" not in script


def test_script_of_another_release_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(completion.VARIABLE, "complete_bash")
    assert run() == (0, "", "")


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self._leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            argv, stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True
        )
        os.close(follower)

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def until(self, expected: str) -> str:
        """What is shown up to and with the expected text."""
        shown, end = "", time.monotonic() + PATIENCE
        while expected not in shown:
            ready, _, _ = select.select([self._leader], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{expected!r} was not shown, but {shown!r}"
            shown += os.read(self._leader, 4096).decode(errors="replace")
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)


@contextmanager
def terminal(argv: list[str], home: Path) -> Iterator[Terminal]:
    """A shell that has `weft` in its path."""
    program = home / "weft"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m weft.main "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{home}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "WEFT_SOCKET": os.environ["WEFT_SOCKET"],
        "HOME": str(home),
        "TERM": "dumb",
        "PS1": "READY> ",
        "INPUTRC": "/dev/null",
    }
    made = Terminal(argv, environment)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.usefixtures("peopled")
def test_real_bash_completes_at_a_terminal(tmp_path: Path) -> None:
    with terminal(["bash", "--norc", "--noprofile", "-i"], tmp_path) as bash:
        bash.until("READY> ")
        bash.type("source <(weft completion bash)\n")
        bash.until("READY> ")
        for typed, completed in (
            ("weft get con\t", "weft get connections "),
            ("weft get connections sh\t", "weft get connections shop/web-0 "),
            ("weft ipam release fd00::1\t", "weft ipam release fd00::16 "),
            ("weft label pod w\t", "weft label pod web-1 "),
        ):
            bash.type(typed)
            bash.until(completed)
            bash.type("\x15\n")  # away with the line
            bash.until("READY> ")
