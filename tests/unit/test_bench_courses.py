"""Executing courses: order, output, failures, and the bound on what runs at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.execution import Course, Execution, Refused, follow, race
from bench.network import Container, Network

CAT = "/bin/cat"


def shell(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_course_is_sent_what_each_program_printed() -> None:
    heard = []

    def course() -> Course:
        heard.append((yield Execution(CAT, {}, b"one")))
        heard.append((yield Execution(CAT, {}, heard[0] + b" two")))

    follow(course())
    assert heard == [b"one", b"one two"]


def test_failed_program_ends_its_course_and_is_named(tmp_path: Path) -> None:
    bad = shell(tmp_path, "bad", "echo why; exit 3")

    def course() -> Course:
        yield Execution(bad, {"CNI_COMMAND": "ADD"}, b"")
        raise AssertionError("the course went on")

    with pytest.raises(Refused, match="bad ADD exited with 3: why"):
        follow(course())


def test_race_counts_failures_and_finishes_the_rest(tmp_path: Path) -> None:
    bad = shell(tmp_path, "bad", "exit 1")

    def course(number: int) -> Course:
        yield Execution(bad if number == 2 else CAT, {}, b"x")

    done = race((course(number) for number in range(5)), width=2)
    assert len(done.each) == 4
    assert len(done.failures) == 1
    assert done.makespan >= max(done.each)


def test_race_never_runs_more_than_its_width_at_once() -> None:
    open_now = most = 0

    def course() -> Course:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        yield Execution(CAT, {}, b"")
        yield Execution(CAT, {}, b"")
        open_now -= 1

    race((course() for _ in range(12)), width=3)
    assert (open_now, most) == (0, 3)


def test_plugins_get_the_result_of_the_one_before_and_del_runs_backwards(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("first", "second"):
        answer = f'{{"from":"{name}"}}'
        text = (
            f"in=$(/bin/cat); echo \"{name} $CNI_COMMAND $CNI_IFNAME $in\" >>{log}; echo '{answer}'"
        )
        shell(tmp_path, name, text)
    conflist = {
        "cniVersion": "1.0.0",
        "name": "net",
        "plugins": [{"type": "first", "capabilities": {"ips": True}}, {"type": "second"}],
    }
    network = Network(conflist, str(tmp_path))
    container = Container("c1", "/run/netns/c1")
    follow(network.add(container))
    follow(network.delete(container))
    assert container.result == {"from": "second"}
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[:3] for line in lines] == [
        ["first", "ADD", "eth0"],
        ["second", "ADD", "eth0"],
        ["second", "DEL", "eth0"],
        ["first", "DEL", "eth0"],
    ]
    assert "prevResult" not in lines[0][3]
    assert "capabilities" not in lines[0][3]
    assert '"prevResult":{"from":"first"}' in lines[1][3]
    assert all('"prevResult":{"from":"second"}' in line[3] for line in lines[2:])


def test_ports_are_told_to_the_plugins_that_publish_them_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("wires", "publishes"):
        shell(tmp_path, name, f'echo "{name} $(/bin/cat)" >>{log}; echo "{{}}"')
    plugins = [
        {"type": "wires", "capabilities": {"bandwidth": True}},
        {"type": "publishes", "capabilities": {"portMappings": True}},
    ]
    network = Network({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}, str(tmp_path))
    container = Container("c1", "/run/netns/c1", range(81, 83))
    follow(network.add(container))
    follow(network.delete(container))
    wires, publishes, again, _ = log.read_text().splitlines()
    assert "runtimeConfig" not in wires
    assert '{"hostPort":82,"containerPort":8080,"protocol":"tcp"}' in publishes
    assert again.startswith("publishes") and "runtimeConfig" in again
