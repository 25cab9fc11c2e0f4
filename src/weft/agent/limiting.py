"""Whether this kernel can limit a container's rates.

`require` is asked before the first ADD that wants it has any effect: a trial in a network
namespace of its own tells, once and for ever where it succeeds. `why` is what status shows: the
trial's outcome, or, before there was one, what the kernel tells of itself. A trial may load
modules (that of ifb brings `ifb0` and `ifb1` along), so nobody who limits nothing has one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path

from weft.drivers.engine import Engine
from weft.drivers.surroundings import Host
from weft.drivers.table import link_drivers
from weft.fabric.bandwidth import IFB_MTU, bucket
from weft.kernel import namespaces
from weft.model.attachment import LIMITER_PREFIX
from weft.model.errors import Unsupported, WeftError
from weft.model.kernel_features import BANDWIDTH, Features, missing
from weft.rows.bandwidth import Ifb, Redirect
from weft.rows.base import Place
from weft.rows.links import Up

TRIAL = 10.0  # seconds that a trial may take: modules may have to be loaded
_TRIAL_LINK = LIMITER_PREFIX + "trial"


class Limiting:
    """What is known of the kernel's token buckets."""

    def __init__(self) -> None:
        self.proven = False
        """A trial succeeded."""
        self._turn = asyncio.Lock()
        self._refusal = ""
        self._told: str | None = None

    async def require(self) -> None:
        """Raise Unsupported where rates cannot be limited. Of many at once, one tries."""
        async with self._turn:
            if not self.proven:
                await self._try()

    async def _try(self) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def tell(why: str) -> None:
            if not ended.done():
                ended.set_result(why)

        def run() -> None:
            why = trial()
            with suppress(RuntimeError):  # the agent has ended meanwhile
                loop.call_soon_threadsafe(tell, why)

        threading.Thread(target=run, name="weft-trial", daemon=True).start()
        try:
            async with asyncio.timeout(TRIAL):
                self._refusal = await ended
        except TimeoutError:
            self._refusal = f"the kernel did not answer within {TRIAL:.0f} s"
        self.proven = not self._refusal
        if self._refusal:
            raise Unsupported(
                f"this node cannot limit the container's bandwidth: {self._refusal}; take the "
                "limits away, or use a kernel with CONFIG_IFB, CONFIG_NET_SCH_TBF, "
                "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED",
                reason="no-bandwidth",
            )

    async def why(self) -> str:
        """Why rates cannot be limited, or "" where they can, as far as that is known."""
        if self.proven or self._refusal:
            return self._refusal
        if self._told is None:
            self._told = await asyncio.to_thread(told, BANDWIDTH)
        return self._told


def trial() -> str:
    """Everything that a limit needs, made once; why that does not work, or "". For a thread of its
    own, which ends after it: what was made ends with the thread's network namespace."""
    try:
        namespaces.leave_for_new()
        host = Host()
        try:
            ifb = Ifb(name=_TRIAL_LINK, mtu=IFB_MTU, alias=_TRIAL_LINK, group=1)
            rows = (
                ifb,
                bucket(ifb.name, 10**6, 0, 1500),
                Redirect(link="lo", to=ifb.name),
                Up(place=Place.HOST, link=ifb.name),
            )
            engine = Engine(host, link_drivers())
            engine.apply("trial", rows)
            wrong = engine.differences("trial")
            return "; ".join(each.words for each in wrong)
        finally:
            host.close()
    except WeftError as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)


def told(features: Features) -> str:
    """What the kernel says it lacks of these. Unknown counts as there: a trial will tell."""
    symbols = _text("/proc/kallsyms")
    release = os.uname().release
    modules = "".join(
        _text(f"/lib/modules/{release}/modules.{kind}") for kind in ("dep", "builtin")
    )
    lacking = missing(features, symbols, modules) if symbols or modules else []
    return f"the kernel seems to lack {', '.join(lacking)}" if lacking else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
