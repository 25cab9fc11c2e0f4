"""What the kernel puts off is tried again, and the loop turns meanwhile."""

import asyncio
import errno

import pytest

from weft.agent.patience import PAUSES, patiently
from weft.model.errors import KernelRefused


class Kernel:
    """Refuses with each of `codes`, then takes what is asked."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.asked = 0

    def take(self) -> str:
        self.asked += 1
        if self.codes:
            raise KernelRefused(self.codes.pop(0), "do it")
        return "done"


def test_what_the_kernel_puts_off_is_done_later_and_the_loop_goes_on() -> None:
    async def scenario() -> None:
        kernel, turns = Kernel(errno.EBUSY, errno.ENOBUFS, errno.ENOMEM), 0

        async def other() -> None:
            nonlocal turns
            while kernel.codes:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        assert await patiently(kernel.take) == "done"
        await beside
        assert kernel.asked == 4
        assert turns > 3

    asyncio.run(scenario())


def test_a_refusal_that_stays_is_raised_after_the_last_try() -> None:
    kernel = Kernel(*[errno.EBUSY] * 100)
    with pytest.raises(KernelRefused, match="EBUSY"):
        asyncio.run(patiently(kernel.take))
    assert kernel.asked == 1 + len(PAUSES)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM, errno.EEXIST, errno.ENOENT])
def test_a_refusal_that_will_not_pass_is_raised_at_once(code: int) -> None:
    kernel = Kernel(errno.EBUSY, code, errno.EBUSY)
    with pytest.raises(KernelRefused) as caught:
        asyncio.run(patiently(kernel.take))
    assert (caught.value.errno, kernel.asked) == (code, 2)
