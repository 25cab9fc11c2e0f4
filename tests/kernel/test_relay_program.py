"""The relay's process as its keeper sees it: giving way to another release, and odd questions."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from weft.agent.events import Log
from weft.agent.relaying import Relaying
from weft.engines import relay
from weft.kernel.loopback_hook import Goal, Port
from weft.lab import calls
from weft.lab.nodes import Node
from weft.model.errors import PeerFault

TCP = Port(6, 80)
GOAL = Goal(socket.inet_pton(socket.AF_INET6, "::1"), 9)


def _own(path: Path, goal: Goal = GOAL) -> int:
    return {(a, b): c for a, b, c in relay.lead(path, {TCP: goal}, {}).ports}[TCP]


def _giving_way() -> list[Any]:
    with tempfile.TemporaryDirectory() as top, socket.socket(socket.AF_INET6) as container:
        path = Path(top, relay.NAME)
        container.bind(("::1", 0))
        container.listen()
        goal = GOAL._replace(number=container.getsockname()[1])
        first = relay.start(path)
        with socket.create_connection(("::1", _own(path, goal)), timeout=5) as near:
            far, _ = container.accept()
            relay.retire(path)
            second = relay.start(path)
            led = _own(path, goal)
            far.sendall(b"word")
            seen: list[Any] = [
                near.recv(16).decode(),
                sorted(each.name for each in Path(top).iterdir()),
            ]
            relay.clear(path.parent)  # it lives, and keeps its name
            seen.append(len(list(Path(top).iterdir())))
            far.close()
        seen.append(first.wait(timeout=5))  # with its last stream
        relay.clear(path.parent)
        seen.append([each.name for each in Path(top).iterdir()])
        with socket.create_connection(("::1", led), timeout=5):
            container.accept()[0].close()
        relay.end_all(path.parent)
        return [*seen, second.wait(timeout=5), len(list(Path(top).iterdir())), first.pid]


def test_one_that_gives_way_ends_with_its_last_stream(node: Node) -> None:
    *seen, pid = calls.call(node, _giving_way)
    both = [f"relay-{pid}.sock", relay.NAME]
    assert seen == ["word", both, 2, 0, [relay.NAME], 0, 0]


ODD = (
    b"\n",
    b"[]\n",
    b'{"do": 1}\n',
    b'{"do": "lead"}\n',
    b'{"do": "lead", "goals": [[6, 80, "localhost", 80, 0]]}\n',
    b'{"do": "lead", "goals": [[6, 80, "::1", 99999, 0]]}\n',
    b'{"do": "lead", "goals": [[6, 80, "::1", 80, -1]]}\n',
    b"[" * 100_000 + b"\n",
    b"\xff\n",
)


def _odd() -> list[str]:
    with tempfile.TemporaryDirectory() as top:
        path = Path(top, relay.NAME)
        process = relay.start(path)
        said = []
        for words in ODD:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(5)
                peer.connect(str(path))
                peer.sendall(words)
                said.append(peer.recv(1 << 12).decode())
        assert relay.hello(path).ports == ()
        with pytest.raises(PeerFault, match="no port"):
            relay.lead(path, {TCP: GOAL._replace(number=1 << 16)}, {})
        relay.kill(path)
        process.wait(timeout=5)
        return said


def _dying() -> list[Any]:
    with tempfile.TemporaryDirectory() as top:
        return asyncio.run(_killed(Path(top)))


async def _killed(directory: Path) -> list[Any]:
    told: asyncio.Queue[dict[Port, int]] = asyncio.Queue()
    kept = Relaying(directory, Log(), told.put_nowait)
    kept.want({TCP: GOAL})
    seen = []
    try:
        async with asyncio.timeout(10):
            seen.append(await told.get())
            relay.kill(directory / relay.NAME)
            seen += [await told.get(), await told.get()]
            assert kept.said is not None
            handle = os.pidfd_open(kept.said.pid)
            (directory / relay.NAME).unlink()
            kept.want({TCP: GOAL})
            await asyncio.to_thread(select.select, [handle], [], [])
            os.close(handle)
            seen += [await told.get(), await told.get()]
    finally:
        await kept.forget()
        relay.end_all(directory)
    return [[(*port, own) for port, own in each.items()] for each in (*seen, told.get_nowait())]


def test_packet_rules_lead_to_no_port_that_a_dead_relay_had(node: Node) -> None:
    first, then, again, later, last, end = calls.call(node, _dying)
    assert (then, later, end) == ([], [], [])
    assert len(last) == 1  # its socket had been removed: it was ended
    assert first == again and first[0][:2] == [6, 80]


def test_which_process_it_is_the_kernel_says_and_not_the_relay(tmp_path: Path) -> None:
    path = tmp_path / relay.NAME
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def lies() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(64)
                peer.sendall(b'{"release": "0", "pid": 1}\n')

        beside = threading.Thread(target=lies)
        beside.start()
        assert relay.hello(path).pid == os.getpid()
        beside.join()


def _crowded() -> list[Any]:
    with tempfile.TemporaryDirectory() as top:
        path = Path(top, relay.NAME)
        process = relay.start(path)
        said = relay.lead(path, {Port(6, number): GOAL for number in range(1, 30_000)}, {})
        relay.end(path)
        return [len(said.ports), len(said.refused), process.wait(timeout=5)]


def test_of_too_many_ports_it_leads_the_first(node: Node) -> None:
    led, refused, status = calls.call(node, _crowded)
    assert 0 < led <= 1000
    assert (led + refused, status) == (29_999, 0)


def test_what_it_does_not_understand_changes_nothing(node: Node) -> None:
    assert all("not understood" in each for each in calls.call(node, _odd))
