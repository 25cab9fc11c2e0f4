"""Trying again what the kernel puts off: a set that is just being enlarged, a socket without room.

Apart because only here may be waited: transports and the engine run on the loop and answer such a
refusal at once (`KernelRefused.passes`). The pauses are short and few, because EBUSY also means
that something is in use and will stay so; a runtime's patience is left to the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from weft.model.errors import KernelRefused

PAUSES = (0.002, 0.004, 0.008, 0.016)  # seconds before each further try

T = TypeVar("T")


async def again(act: Callable[[], T], refusal: KernelRefused) -> T:
    """`act`, which was just refused, until it is not. Raises KernelRefused: at once where the
    refusal will not pass, else the last one."""
    for pause in PAUSES:
        if not refusal.passes:
            break
        await asyncio.sleep(pause)
        try:
            return act()
        except KernelRefused as error:
            refusal = error
    raise refusal


async def patiently(act: Callable[[], T]) -> T:
    """`act` at once, or `again`."""
    try:
        return act()
    except KernelRefused as refusal:
        return await again(act, refusal)
