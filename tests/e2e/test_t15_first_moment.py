"""T15: a program that waits in the namespace and sends from the moment there is a link."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from acceptance import Host, ask, pod_mac, problems
from lies import Ears, Liar, honest, lies, tables
from weft.lab.ears import Mouth, nonce
from weft.lab.haste import Hasty
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6

BATCH = 20
GUESS = ("10.244.0.250", "fd00::250")  # the pod does not know its addresses before it has them


@pytest.mark.matrix(id="T15", full=1000, reduced=20)
def test_what_is_sent_from_link_up_on_reaches_nobody(host: Host, count: int) -> None:
    body = host.add("victim").json
    ip4, ip6 = (ip["address"].split("/")[0] for ip in body["ips"])
    victim = Liar(name="victim", mac=body["interfaces"][1]["mac"], ip4=ip4, ip6=ip6)
    sent = early = 0
    with Ears(host, [victim]) as ears:
        for first in range(0, count, BATCH):
            names = [f"early-{n}" for n in range(first, min(first + BATCH, count))]
            before = tables(host)
            host.make(names)
            for name in names:
                ends = _attach_while_sending(host, ears, name, victim)
                early += ends[0]
                sent += ends[1]
            assert not problems(host.storm([ask("DEL", name) for name in names]))
            host.unmake(names)
            assert tables(host) == before
    assert sent >= count, "hardly anything was sent, so hardly anything is proven"
    assert early > 0, "nothing was sent before ADD had answered, so its window was not looked at"
    host.drop("victim")


def _attach_while_sending(host: Host, ears: Ears, name: str, victim: Liar) -> tuple[int, int]:
    """ADD with a sender at work; how many frames its link took before the answer, and in all."""
    me = Liar(name=name, mac=pod_mac(name), ip4=GUESS[0], ip6=GUESS[1])
    told = {mark: (claim, frame) for claim, mark, frame in lies(me, victim)}
    with Hasty(host.network(name), [frame for _, frame in told.values()]) as sender:
        said = host.send(ask("ADD", name))
        early = sender.taken()
        assert not problems([said])
        _prove(host, ears, me, victim, said.addresses)
        late = sender.silence()
    heard = {(place, told[mark][0]) for place, mark in ears.drain(told)}
    assert not heard, f"{name}: {heard}"
    return early, early + late


def _prove(host: Host, ears: Ears, me: Liar, victim: Liar, own: Sequence[str]) -> None:
    """An honest frame of the new pod arrives as soon as ADD has answered."""
    true = Liar(name=me.name, mac=me.mac, ip4=own[0], ip6=own[1])
    with Mouth(host.network(me.name)) as mouth:
        for goal, place in (
            (victim.ip4, "victim"),
            (victim.ip6, "victim"),
            (OUTSIDE_V4, "outside"),
            (OUTSIDE_V6, "outside"),
        ):
            mark = nonce()
            mouth.say(honest(true, goal, mark))
            assert ears.ears[place].hears(mark, 5.0), f"an honest frame to {goal} did not arrive"
