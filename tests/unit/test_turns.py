"""Operations of one attachment take turns, and DEL wins over ADD."""

import asyncio

import pytest

from weft.agent.turns import Turns
from weft.model.attachment import AttachmentKey
from weft.model.errors import NotReady

KEY = AttachmentKey("net", "c1", "eth0")
OTHER = AttachmentKey("net", "c2", "eth0")


def test_operations_of_one_key_never_overlap() -> None:
    async def scenario() -> None:
        turns, inside, most = Turns(), 0, 0

        async def work() -> None:
            nonlocal inside, most
            async with turns.deleting(KEY):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(20)))
        assert most == 1
        assert turns.free(KEY)

    asyncio.run(scenario())


def test_operations_of_different_keys_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        turns = Turns()
        async with turns.deleting(KEY):
            assert turns.free(OTHER)
            async with turns.adding(OTHER):
                pass

    asyncio.run(scenario())


def test_a_waiting_add_is_refused_when_a_del_arrives_after_it() -> None:
    async def scenario() -> None:
        turns, ends = Turns(), []
        release = asyncio.Event()

        async def first_del() -> None:
            async with turns.deleting(KEY):
                await release.wait()

        async def add() -> None:
            async with turns.adding(KEY):
                ends.append("added")

        async def second_del() -> None:
            async with turns.deleting(KEY):
                ends.append("deleted")

        tasks = [asyncio.create_task(first_del())]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(add()))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(second_del()))
        await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], NotReady)
        assert results[1].reason == "busy"
        assert ends == ["deleted"]
        assert turns.free(KEY)

    asyncio.run(scenario())


def test_an_add_after_the_last_del_goes_on() -> None:
    async def scenario() -> None:
        turns, release = Turns(), asyncio.Event()

        async def delete() -> None:
            async with turns.deleting(KEY):
                await release.wait()

        task = asyncio.create_task(delete())
        await asyncio.sleep(0)
        release.set()
        async with turns.adding(KEY):
            assert task.done()
        await task

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["adding", "deleting"])
def test_a_failure_inside_a_turn_ends_it(kind: str) -> None:
    async def scenario() -> None:
        turns = Turns()
        with pytest.raises(ValueError, match="inside"):
            async with getattr(turns, kind)(KEY):
                raise ValueError("inside")
        assert turns.free(KEY)

    asyncio.run(scenario())
