"""The agent's socket is held by a supervisor: who calls while no agent runs waits for the next.

What becomes of calls where none comes back is in test_t06_agent_down.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from acceptance import SLACK, Host, ask, host_link, problems, watched

SUPERVISE = Path(__file__).resolve().parents[2] / "deploy" / "weft-supervise"
SOCKET = "/run/weft/agent.sock"


def supervised(made: Host) -> Host:
    """Its agent is kept, and its socket held, by the supervisor."""
    made.command = [
        *(str(SUPERVISE), "--listen", SOCKET, "/run/weft-supervise.pid", *made.command),
    ]
    return made


def agent_of(host: Host) -> int:
    """The process that the supervisor keeps; 0 between two of them."""
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _kill_agent(host: Host) -> None:
    agent = agent_of(host)
    os.kill(agent, signal.SIGKILL)
    while Path(f"/proc/{agent}").exists():
        time.sleep(0.002)


def test_calls_wait_for_the_next_agent_and_none_fails(new_host: Callable[..., Host]) -> None:
    with watched(supervised(new_host())) as host:
        host.add("first")
        host.make(["second"])
        _kill_agent(host)
        said = host.storm([ask("ADD", "second"), ask("DEL", "first"), ask("STATUS")], workers=3)
        assert not problems(said), "nobody was refused: the next agent served them"
        assert max(each.seconds for each in said) < 3.5 * SLACK
        assert host.pod_links == {host_link("second")}
        assert host.node.path(SOCKET).stat().st_mode & 0o777 == 0o600
        host.drop("second")
        host.unmake(["first"])
