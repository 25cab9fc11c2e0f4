"""Benchmarks `add` and `del`: one attachment at a time, each side in its own node.

Both read the same measured blocks, in which every ADD is followed by its DEL and by the wait
until all is gone; namespaces are made and given back outside of every timed window.
"""

from __future__ import annotations

from bench.figures import added, pooled, quantile, ratio
from bench.lines import line, peer
from bench.run import Block, Run, times

OF_CHAIN = 0.07
OF_FLOOR = 3.0
DUAL_OF_FLOOR = 0.4
DEL_OF_CHAIN = 0.05
GONE_OF_CHAIN = 0.5


def add(run: Run) -> None:
    """ADD of weft, exec to exit, beside the chain's and beside the floor."""
    blocks = run.blocks()
    for family in ("v4", "dual"):
        for other, target in (("chain", OF_CHAIN), ("floor", OF_FLOOR)):
            _compare(run, blocks, "add", (f"ADD {family}", "add", family, other), target)
    longer, shorter, unit = (
        times(blocks[name], "add") for name in ("weft dual", "weft v4", "floor v4")
    )
    ordinary, slow = (
        quantile(pooled(longer), share) - quantile(pooled(shorter), share) for share in (0.5, 0.99)
    )
    run.lines.append(
        line(
            "add",
            "what dual stack adds",
            longer,
            p50=ordinary,
            p99=slow,
            worst=slow,
            peer=peer("floor v4", unit, added(longer, shorter, unit)),
            target=DUAL_OF_FLOOR,
            void=run.void,
        )
    )


def delete(run: Run) -> None:
    """DEL of weft, to its answer and until all is gone, beside the chain's."""
    blocks = run.blocks()
    for family in ("v4", "dual"):
        for what, key, target in (
            ("DEL {}, to the answer", "del", DEL_OF_CHAIN),
            ("DEL {}, until all is gone", "gone", GONE_OF_CHAIN),
        ):
            _compare(run, blocks, "del", (what.format(family), key, family, "chain"), target)


def _compare(
    run: Run,
    blocks: dict[str, list[Block]],
    benchmark: str,
    what: tuple[str, str, str, str],
    target: float,
) -> None:
    title, key, family, other = what
    mine = times(blocks[f"weft {family}"], key)
    theirs = times(blocks[f"{other} {family}"], key)
    run.lines.append(
        line(
            benchmark,
            title,
            mine,
            peer=peer(f"{other} {family}", theirs, ratio(mine, theirs)),
            target=target,
            void=run.void,
        )
    )
