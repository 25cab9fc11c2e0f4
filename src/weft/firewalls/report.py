"""Judgements as the agent's status shows them, and as findings of `weft doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from weft.firewalls import advice
from weft.firewalls.flows import Flow
from weft.firewalls.judge import Judgement
from weft.firewalls.owners import owners_of
from weft.model.addresses import Prefix
from weft.wire.api import Finding
from weft.wire.status import ForeignFirewall, Why

REASON = "foreign-firewall"


def reported(
    judgements: Iterable[Judgement], pools: Sequence[Prefix]
) -> tuple[ForeignFirewall, ...]:
    """One entry a chain."""
    return tuple(_entry(each, pools) for each in judgements)


def _entry(judgement: Judgement, pools: Sequence[Prefix]) -> ForeignFirewall:
    drops, unclear = judgement.drops, judgement.unclear
    broken = tuple(flow for flow in drops if flow.needed)
    flows = broken or drops or unclear
    message = ""
    if drops:
        message = advice.sentence(judgement, broken or drops)
    elif unclear:
        message = advice.doubt(judgement)
    return ForeignFirewall(
        chain=advice.place(judgement),
        hook=advice.hook_word(judgement),
        owners=owners_of(judgement),
        drops=_names(drops),
        unclear=_names(unclear),
        breaks=bool(broken),
        message=message,
        mend="; ".join(advice.mend(judgement, flows, pools)) if drops else "",
    )


def _names(flows: Iterable[Flow]) -> tuple[str, ...]:
    return tuple(flow.name for flow in flows)


def warnings(entries: Iterable[ForeignFirewall]) -> Iterator[Why]:
    """What keeps pods from having a network; the rest is for `weft doctor`."""
    for each in entries:
        if each.breaks:
            yield Why(
                reason=REASON,
                message=f"{each.message}, and no rule of weft can override that; to let them "
                f"pass: {each.mend}",
                mend=each.mend,
            )


def findings(entries: Sequence[ForeignFirewall]) -> Iterator[Finding]:
    """One for every chain that drops or may drop, or one that says that none does."""
    for each in entries:
        if each.drops:
            yield Finding(
                id=REASON,
                level="bad" if each.breaks else "warn",
                text=each.message,
                mend=each.mend,
                owner=each.owners[0] if each.owners else "",
            )
        elif each.unclear:
            yield Finding(
                id=REASON,
                level="warn",
                text=each.message,
                mend=f"nft list {each.chain}" if "legacy" not in each.chain else "",
            )
    if not any(each.drops or each.unclear for each in entries):
        yield Finding(
            id=REASON, level="ok", text="no other packet filter of this host drops pods' packets"
        )
