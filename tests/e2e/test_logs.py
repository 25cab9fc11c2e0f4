"""`weft logs` of a real agent's file, and of a real journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from acceptance import Host, host_link
from journals import journal
from weft.lab import cluster, nodes
from weft.lab.nodes import CLEAN_PATH, Node

FILE = ("--file", str(cluster.AGENT_LOG))
ENVIRONMENT = {
    "PATH": CLEAN_PATH,
    "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
    "PYTHONUNBUFFERED": "1",
}


@contextmanager
def followed(node: Node, *words: str) -> Iterator[Iterator[str]]:
    """The lines of a `weft logs --follow`, as they come."""
    running = node.popen(
        [sys.executable, "-m", "weft.main", "logs", "--follow", *words],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    limit = threading.Timer(30.0, running.kill)  # a line that never comes ends the stream
    limit.start()
    try:
        yield (line.decode().rstrip("\n") for line in running.stdout)
    finally:
        limit.cancel()
        running.terminate()
        running.wait(10)
        running.stdout.close()


def test_log_of_one_pod_is_told_by_any_of_its_names(host: Host) -> None:
    names = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
    web = host.add("web-container", cni_args=names + "web-0").addresses[0]
    host.add("db-container", cni_args=names + "db-0")
    key = "weft/web-container/eth0"
    told = {
        word: host.weft("logs", word, *FILE)
        for word in ("shop/web-0", "web-c", host_link("web-container"), web)
    }
    lines = told["shop/web-0"].splitlines()
    assert lines and all(key in line for line in lines if "ADD" in line)
    assert any("ADD" in line and "outcome=ok" in line for line in lines)
    assert "db-container" not in told["shop/web-0"]
    assert len(set(told.values())) == 1, "every name finds the same lines"
    with followed(host.node, "-o", "json", "web-container", *FILE) as lines_of:
        assert json.loads(next(lines_of))["attachment"] == key
        host.drop("db-container")
        host.drop("web-container")
        last = next(one for one in map(json.loads, lines_of) if one["message"] == "DEL")
    assert (last["attachment"], last["outcome"], last["level"]) == (key, "ok", "info")


def test_journal_is_read_and_followed() -> None:
    line = "2026-01-01T00:00:0{}.000Z {} {} attachment=weft/c{}/eth0\n"
    node = nodes.start(f"logs-journal-{os.getpid()}")
    try:
        with journal(node) as write:
            write("other.service", line.format(1, "info", "another unit", 1))
            write("weft.service", line.format(2, "info", "first", 1) + "not the agent's\n")
            write("weft.service", line.format(3, "warning", "second", 2))
            where = ("--file", "/run/log/journal")
            with followed(node, *where, "-o", "json") as lines:
                told = [json.loads(next(lines)) for _ in range(3)]
                assert [each["message"] for each in told] == ["first", "not the agent's", "second"]
                assert told[2] == {
                    "time": "2026-01-01T00:00:03.000Z",
                    "level": "warning",
                    "message": "second",
                    "attachment": "weft/c2/eth0",
                }
                write("weft.service", line.format(4, "error", "third", 1))
                assert json.loads(next(lines))["message"] == "third"
            for words, expected in (
                (("--level", "warning"), ["second", "third"]),
                (("weft/c1/eth0",), ["first", "not the agent's", "third"]),
                (("-n", "1"), ["third"]),
            ):
                done = node.run(
                    [sys.executable, "-m", "weft.main", "logs", *where, "-o", "json", *words],
                    env=ENVIRONMENT,
                )
                shown = [json.loads(each)["message"] for each in done.stdout.splitlines()]
                assert shown == expected, (words, done.stderr)
    finally:
        nodes.stop(node)
