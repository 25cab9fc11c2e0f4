"""The prober's process: wanted traffic on standard input, the report on standard output.

    python -m weft.lab.traffic < WANTED.json

The first line of input is `Wanted` as JSON. When every flow has gone through once, "running" is
printed and the counting begins; it ends when standard input does, or after `limit` seconds. Then
one line of JSON follows: the report. Exit status 1 when the flows did not come about.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from weft.lab import libc
from weft.lab.traffic import forgeries
from weft.lab.traffic.actors import Actor, Stage
from weft.lab.traffic.datagrams import Datagrams
from weft.lab.traffic.forgeries import Forger, Listening
from weft.lab.traffic.reports import Report
from weft.lab.traffic.streams import Stream
from weft.lab.traffic.wanted import Wanted
from weft.model.errors import NotReady, WeftError


class Prober:
    """All traffic of this process."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._stage = stage = Stage()
        pause = _interval(wanted.datagram_rate, wanted.datagrams)
        self._datagrams = [Datagrams(flow, pause, stage) for flow in wanted.datagrams]
        pause = _interval(wanted.chunk_rate, wanted.streams)
        self._streams = [Stream(flow, pause, stage, wanted.patience) for flow in wanted.streams]
        session = forgeries.session()
        self._ears = [Listening(each, session, stage) for each in wanted.listeners]
        pause = _interval(wanted.forged_rate, wanted.liars)
        self._forgers = [Forger(liar, pause, session) for liar in wanted.liars]

    def try_all(self) -> None:
        """Until each flow has gone through once. Raises NotReady naming those that do not."""
        deadline = time.monotonic() + self._wanted.patience
        while waiting := [each for each in self._datagrams if not each.is_tried]:
            if time.monotonic() > deadline:
                names = ", ".join(each.flow.name for each in waiting[:5])
                raise NotReady(f"{len(waiting)} flows do not go through: {names}")
            for each in waiting:
                each.attempt()
            self._stage.play(self._tried_until(time.monotonic() + 0.2), silent=True)

    def _tried_until(self, pause: float) -> Callable[[], bool]:
        """Whether all flows have gone through, or the pause (monotonic seconds) is over."""
        return lambda: time.monotonic() > pause or all(each.is_tried for each in self._datagrams)

    def run(self) -> Report:
        """Speak until standard input ends or the limit is reached, then wait for stragglers."""
        began = time.monotonic()
        kinds: list[Sequence[Actor]] = [self._datagrams, self._streams, self._forgers]
        for actors in kinds:
            for place, actor in enumerate(actors):
                self._stage.join(actor, actor.interval * place / len(actors))
        limit = began + self._wanted.limit
        self._stage.play(lambda: time.monotonic() > limit or _ended())
        seconds = time.monotonic() - began
        deadline = time.monotonic() + self._wanted.drain
        self._stage.play(lambda: self._is_over(deadline), silent=True)
        told = self._forgers[0].claims if self._forgers else []
        return Report(
            seconds=seconds,
            datagrams=tuple(each.report() for each in self._datagrams),
            streams=tuple(each.report() for each in self._streams),
            liars=tuple(each.report() for each in self._forgers),
            heard=tuple(each.report([words for words, _ in told]) for each in self._ears),
        )

    def _is_over(self, deadline: float) -> bool:
        for stream in self._streams:
            stream.push()
        settled = all(each.is_settled for each in self._datagrams)
        settled = settled and all(each.is_settled for each in self._streams)
        now = time.monotonic()
        # forged frames have a moment to arrive in any case
        return now > deadline or (settled and now > deadline - self._wanted.drain + 0.3)


def _interval(rate: float, actors: Sequence[object]) -> float:
    """Seconds between two turns of one, for all together to reach the rate."""
    return max(1, len(actors)) / rate


def _ended() -> bool:
    """Whether standard input has; what else is written there is ignored."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 4096)


def main() -> int:
    """The whole process."""
    libc.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's: who started us ends us
    try:
        prober = Prober(msgspec.json.decode(sys.stdin.buffer.readline(), type=Wanted))
        prober.try_all()
        print("running", flush=True)
        print(msgspec.json.encode(prober.run()).decode(), flush=True)
    except (WeftError, OSError, msgspec.MsgspecError) as error:
        print(f"weft.lab.traffic: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
