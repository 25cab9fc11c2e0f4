"""Deleting host links without waiting for the kernel's grace periods.

The acknowledgement of RTM_DELLINK comes 16 to 20 ms after the link is gone from look-up, so a
worker thread sends it and the loop only watches the name vanish. Names that arrive while all
workers are busy go as one link group: one grace period for all of them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from weft.drivers.removal import FOREIGN
from weft.kernel.netlink import Failure
from weft.model.errors import KernelRefused

WORKERS = 12  # a deletion keeps its worker for 20 ms, and one DEL after the other comes every 2
LOOK_AGAIN = 0.0005  # seconds between two looks for names that should be gone
FULL_LOOK = 20  # every so many looks, all names: a link may also vanish by itself
PATIENCE = 20.0  # seconds until a deletion that does not come true is an error

Delete = Callable[[Sequence[str], Mapping[str, int]], Mapping[str, int]]
"""Names, and the numbers of those whose number is known; answers errno by name."""
Gone = Callable[[str], bool]


class Reaper:
    """Gathers names, deletes them in workers, and tells each waiter when its name is gone."""

    def __init__(self, delete: Delete, gone: Gone) -> None:
        self._delete = delete
        self.gone = gone
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="weft-reaper")
        self._busy = 0
        self._pending: dict[str, int | None] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._flying: list[dict[str, int | None]] = []  # batches that workers have
        self._timer: asyncio.TimerHandle | None = None
        self._looks = 0
        self._running: set[asyncio.Future[None]] = set()

    async def delete(self, name: str, number: int | None = None) -> None:
        """Return when no link of ours can be looked up by this name. Raises KernelRefused.

        `number`: only the link with this interface index is deleted, never one that has been
        made again under the name.
        """
        if self.gone(name):
            return
        future = self._waiting.get(name)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting[name] = future
            self._pending[name] = number
            self._work()
            self._look_later()
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(future)
        except TimeoutError:
            self._waiting.pop(name, None)
            self._pending.pop(name, None)
            raise KernelRefused(
                errno.ETIMEDOUT, "delete link", name, f"still there after {PATIENCE:.0f} s"
            ) from None

    def _work(self) -> None:
        if not self._pending or self._busy >= WORKERS:
            return
        batch, self._pending = self._pending, {}
        self._busy += 1
        self._flying.append(batch)
        task = asyncio.ensure_future(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: dict[str, int | None]) -> None:
        loop = asyncio.get_running_loop()
        numbers = {name: number for name, number in batch.items() if number is not None}
        refusals: Mapping[str, int]
        try:
            refusals = await loop.run_in_executor(self._pool, self._delete, list(batch), numbers)
        except (OSError, Failure, KernelRefused) as error:
            refusals = dict.fromkeys(batch, error.errno or errno.EIO)
        finally:
            self._busy -= 1
            self._flying.remove(batch)
        for name, code in refusals.items():
            if code == FOREIGN:
                self._done(name)
            elif code and code != errno.ENODEV:
                self._fail(name, code)
        self._look()
        self._work()

    def _fail(self, name: str, code: int) -> None:
        future = self._waiting.pop(name, None)
        if future is not None and not future.done():
            future.set_exception(KernelRefused(code, "delete link", name))

    def _done(self, name: str) -> None:
        future = self._waiting.pop(name, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _look_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look_timed)

    def _look_timed(self) -> None:
        self._timer = None
        self._looks += 1
        if self._looks % FULL_LOOK == 0:
            self._look()
        else:
            # the links of a batch vanish together: one of them tells when the others are worth it
            for batch in self._flying:
                lead = next((name for name in batch if name in self._waiting), None)
                if lead is not None and self.gone(lead):
                    self._look_for(batch)
        self._look_later()

    def _look(self) -> None:
        self._look_for(tuple(self._waiting))

    def _look_for(self, names: Iterable[str]) -> None:
        for name in [n for n in names if n in self._waiting and self.gone(n)]:
            self._pending.pop(name, None)
            self._done(name)

    def close(self) -> None:
        """End the workers after what they are doing."""
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=False)
