"""Deletions answer when the name is gone, and gather while the workers are busy."""

import asyncio
import errno
import threading
from collections.abc import Mapping, Sequence

import pytest

from weft.agent.reaper import WORKERS, Reaper
from weft.drivers.removal import FOREIGN
from weft.kernel.netlink import Failure
from weft.model.errors import KernelRefused


class FakeKernel:
    """Names that exist; a deletion takes the name away at once and acknowledges on `release`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = set(names)
        self.batches: list[list[str]] = []
        self.numbers: dict[str, int] = {}
        self.release = threading.Event()
        self.refuse: dict[str, int] = {}

    def delete(self, batch: Sequence[str], numbers: Mapping[str, int]) -> dict[str, int]:
        self.numbers.update(numbers)
        self.batches.append(list(batch))
        self.names -= {name for name in batch if name not in self.refuse}
        self.release.wait(5)
        return {name: self.refuse.get(name, 0) for name in batch}

    def gone(self, name: str) -> bool:
        return name not in self.names


def test_the_answer_does_not_wait_for_the_acknowledgement() -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a"])
        reaper = Reaper(kernel.delete, kernel.gone)
        async with asyncio.timeout(2):
            await reaper.delete("a")
        assert not kernel.release.is_set()
        kernel.release.set()
        reaper.close()

    asyncio.run(scenario())


def test_names_that_arrive_while_workers_are_busy_go_as_one_batch() -> None:
    async def scenario() -> None:
        names = [f"n{i}" for i in range(WORKERS + 40)]
        kernel = FakeKernel(names)
        reaper = Reaper(kernel.delete, kernel.gone)
        tasks = [asyncio.create_task(reaper.delete(name)) for name in names]
        await asyncio.sleep(0.05)
        kernel.release.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)
        assert sorted(n for batch in kernel.batches for n in batch) == sorted(names)
        assert len(kernel.batches) == WORKERS + 1
        reaper.close()

    asyncio.run(scenario())


def test_a_name_that_is_gone_already_sends_nothing() -> None:
    async def scenario() -> None:
        kernel = FakeKernel([])
        reaper = Reaper(kernel.delete, kernel.gone)
        await reaper.delete("a")
        assert kernel.batches == []
        reaper.close()

    asyncio.run(scenario())


def test_a_refusal_reaches_its_waiter_only() -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a", "b"])
        kernel.refuse = {"a": errno.EPERM}
        kernel.release.set()
        reaper = Reaper(kernel.delete, kernel.gone)
        ends = await asyncio.gather(reaper.delete("a"), reaper.delete("b"), return_exceptions=True)
        assert isinstance(ends[0], KernelRefused)
        assert ends[0].errno == errno.EPERM
        assert ends[1] is None
        reaper.close()

    asyncio.run(scenario())


def test_two_waiters_for_one_name_share_a_deletion() -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a"])
        kernel.release.set()
        reaper = Reaper(kernel.delete, kernel.gone)
        await asyncio.gather(reaper.delete("a"), reaper.delete("a"))
        assert kernel.batches == [["a"]]
        reaper.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 200])
def test_every_waiter_is_answered(count: int) -> None:
    async def scenario() -> None:
        names = [f"n{i}" for i in range(count)]
        kernel = FakeKernel(names)
        kernel.release.set()
        reaper = Reaper(kernel.delete, kernel.gone)
        async with asyncio.timeout(5):
            await asyncio.gather(*map(reaper.delete, names))
        assert not kernel.names
        reaper.close()

    asyncio.run(scenario())


def test_a_name_that_vanishes_while_it_waits_is_not_deleted_later() -> None:
    async def scenario() -> None:
        busy = [f"b{i}" for i in range(WORKERS)]
        kernel = FakeKernel([*busy, "a"])
        reaper = Reaper(kernel.delete, kernel.gone)
        tasks = [asyncio.create_task(reaper.delete(name)) for name in busy]
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(reaper.delete("a", 7))
        await asyncio.sleep(0.01)
        kernel.names.discard("a")  # its namespace died
        async with asyncio.timeout(2):
            await waiting
        kernel.names.add("a")  # and it was made again by a new ADD
        kernel.release.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)
        assert "a" in kernel.names
        reaper.close()

    asyncio.run(scenario())


def test_the_number_of_a_link_goes_along() -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a"])
        kernel.release.set()
        reaper = Reaper(kernel.delete, kernel.gone)
        await reaper.delete("a", 42)
        assert kernel.numbers == {"a": 42}
        reaper.close()

    asyncio.run(scenario())


def test_a_foreign_link_of_the_name_ends_the_wait() -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a"])
        kernel.refuse = {"a": FOREIGN}
        kernel.release.set()
        reaper = Reaper(kernel.delete, kernel.gone)
        async with asyncio.timeout(2):
            await reaper.delete("a")
        assert "a" in kernel.names
        reaper.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "trouble", [KernelRefused(errno.EINTR, "dump"), Failure(0, errno.ENOBUFS, ""), OSError(5, "")]
)
def test_a_deletion_that_breaks_answers_everybody_and_the_next_one_works(
    trouble: Exception,
) -> None:
    async def scenario() -> None:
        kernel = FakeKernel(["a", "b"])
        kernel.release.set()
        broken = True

        def delete(batch: Sequence[str], numbers: Mapping[str, int]) -> dict[str, int]:
            if broken:
                raise trouble
            return kernel.delete(batch, numbers)

        reaper = Reaper(delete, kernel.gone)
        async with asyncio.timeout(2):
            with pytest.raises(KernelRefused):
                await reaper.delete("a")
            broken = False
            await reaper.delete("b")
        assert kernel.names == {"a"}
        reaper.close()

    asyncio.run(scenario())
