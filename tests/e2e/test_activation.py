"""The agent's socket is held by a supervisor: who calls while no agent runs waits for the next."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from acceptance import SLACK, Host, ask, host_link, problems, watched

SUPERVISE = Path(__file__).resolve().parents[2] / "deploy" / "weft-supervise"
SOCKET = "/run/weft/agent.sock"


def _agent_of(host: Host) -> int:
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _kill_agent(host: Host) -> None:
    agent = _agent_of(host)
    os.kill(agent, signal.SIGKILL)
    while Path(f"/proc/{agent}").exists():
        time.sleep(0.002)


def test_calls_wait_for_the_next_agent_and_none_fails(new_host: Callable[..., Host]) -> None:
    made = new_host()
    made.command = [
        *(str(SUPERVISE), "--listen", SOCKET, "/run/weft-supervise.pid", *made.command),
    ]
    with watched(made) as host:
        host.add("first")
        host.make(["second"])
        _kill_agent(host)
        said = host.storm([ask("ADD", "second"), ask("DEL", "first"), ask("STATUS")], workers=3)
        assert not problems(said), "nobody was refused: the next agent served them"
        assert max(each.seconds for each in said) < 3.5 * SLACK
        assert host.pod_links == {host_link("second")}
        assert host.node.path(SOCKET).stat().st_mode & 0o777 == 0o600

        # an agent that does not come back: DEL still ends, and is made up for
        agent = _agent_of(host)
        os.kill(host.pid, signal.SIGSTOP)  # nobody starts it again
        os.kill(agent, signal.SIGKILL)
        gone, status = host.storm([ask("DEL", "second"), ask("STATUS")], workers=2)
        assert not problems([gone])
        assert gone.seconds < 10 + SLACK
        assert not problems([status], status=1, code=50)
        assert host.pod_links == set()
        os.kill(host.pid, signal.SIGCONT)
        deadline = time.monotonic() + 5 * SLACK
        while host.send(ask("STATUS")).status != 0:
            assert time.monotonic() < deadline, host.log()[-2000:]
        assert list(host.node.path("/run/weft/queue").iterdir()) == []
        assert host.used() == 0
        host.unmake(["first", "second"])
