"""Tasks that go on whatever they meet."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stderr

from weft.agent.events import Log
from weft.agent.tending import tend


def test_a_task_that_failed_begins_again_and_says_so() -> None:
    log, said, runs = Log(), io.StringIO(), []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise KeyError("what nobody foresaw")

    async def scenario() -> None:
        await asyncio.wait_for(tend("looking", work, log, first=0.01), 10)

    with redirect_stderr(said):
        asyncio.run(scenario())
    assert runs == [0, 1, 2]
    assert log.counts["error", "TaskFailed"] == 2
    assert "looking: KeyError: 'what nobody foresaw'" in log.events[-1].message
    assert "Traceback (most recent call last)" in said.getvalue()


def test_a_task_that_was_cancelled_stays_so() -> None:
    log = Log()

    async def scenario() -> asyncio.Task[None]:
        task = tend("waiting", lambda: asyncio.sleep(60), log, first=0.01)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task

    assert asyncio.run(scenario()).cancelled()
    assert not log.events
