"""What others' packet filters do to pods' packets: rulesets written by hand, and the judgement."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from weft.agent import foreign
from weft.agent.asking import Order
from weft.firewalls import advice, docker, firewalld, ufw
from weft.firewalls.admission import MARK, admissions
from weft.firewalls.flows import Question, Uplink
from weft.firewalls.judge import Judgement, judge
from weft.firewalls.legacy import read_saved
from weft.firewalls.owners import owners_of
from weft.kernel.links import Link
from weft.rows.firewalls import (
    Extension,
    ForeignChain,
    ForeignSet,
    Line,
    Member,
    Opaque,
    Ruleset,
)
from weft.rows.rules import Compare, Conntrack, Family, Hook, Lookup, Meta, Payload, Rule, Verdict

POOL = ip_network("10.244.0.0/16")
ALL = {"out", "answers", "among", "in"}
ASKED = Question(pools=(POOL,), uplinks={4: Uplink(name="eth0", index=2)}, families=(4,))
DOCKER = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
{more}
-A DOCKER-USER -j RETURN
COMMIT
"""


def forward(rules: str, policy: str = "DROP") -> Judgement:
    """The judgement of a chain FORWARD of legacy iptables with these rules."""
    text = f"*filter\n:FORWARD {policy} [0:0]\n:OTHER - [0:0]\n{rules}\nCOMMIT\n"
    (found,) = judge(read_saved(text, Family.IPV4), ASKED)
    return found


def names(judgement: Judgement, dropped: bool | None) -> set[str]:
    return {flow.name for flow in judgement.flows(dropped)}


def docker_chain(more: str) -> ForeignChain:
    (chain,) = docker.chains(read_saved(DOCKER.format(more=more), Family.IPV4))
    return chain


@pytest.mark.parametrize(
    ("rules", "drops", "unclear"),
    [
        ("", ALL, set()),
        ("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", {"out", "among", "in"}, set()),
        ("-A FORWARD -s 10.244.0.0/16 -j ACCEPT", {"answers", "in"}, set()),
        ("-A FORWARD -s 10.0.0.0/8 -j ACCEPT", {"answers", "in"}, set()),
        # a part of the pool may hold this pod's address; one address is not the pool's
        ("-A FORWARD -s 10.244.7.0/24 -j ACCEPT", {"answers", "in"}, {"out", "among"}),
        ("-A FORWARD -s 10.244.7.1 -j ACCEPT", ALL, set()),
        ("-A FORWARD ! -s 10.1.0.0/16 -j ACCEPT", set(), set()),
        ("-A FORWARD -i eth0 -j ACCEPT", {"out", "among"}, set()),
        ("-A FORWARD -i wf+ -j ACCEPT", {"answers", "in"}, set()),
        ("-A FORWARD -p tcp -m tcp --dport 443 -j ACCEPT", ALL, set()),
        ("-A FORWARD -p tcp -j ACCEPT", ALL, set()),
        ("-A FORWARD -m hashlimit --hashlimit-name x -j ACCEPT", set(), ALL),
        ("-A FORWARD -j OTHER\n-A OTHER -j ACCEPT", set(), set()),
        ("-A FORWARD -g OTHER\n-A FORWARD -j ACCEPT", ALL, set()),
        ("-A FORWARD -j NFQUEUE --queue-num 1", set(), ALL),
    ],
)  # fmt: skip
def test_chain_that_drops_by_policy(rules: str, drops: set[str], unclear: set[str]) -> None:
    found = forward(rules)
    assert (names(found, True), names(found, None)) == (drops, unclear)


@pytest.mark.parametrize(
    ("rules", "drops"),
    [
        ("", set()),
        ("-A FORWARD -s 10.244.0.0/16 -j REJECT --reject-with tcp-reset", {"out", "among"}),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", set()),
        ("-A FORWARD -m conntrack --ctstate NEW -i eth0 -j DROP", {"in"}),
        ("-A FORWARD -o docker0 -j DROP", set()),
        ("-A FORWARD -j OTHER\n-A OTHER -p udp -j DROP", ALL),
        ("-A FORWARD -j LOG --log-prefix \"a b\"\n-A FORWARD -s 203.0.113.0/24 -j DROP", set()),
    ],
)  # fmt: skip
def test_chain_that_accepts_by_policy(rules: str, drops: set[str]) -> None:
    assert names(forward(rules, "ACCEPT"), True) == drops


def rule(*words: object) -> Line:
    made: Rule = tuple(words)  # type: ignore[assignment]  # expressions
    return Line(words=made)


def nft(*lines: Line, sets: tuple[ForeignSet, ...] = (), policy: str = "drop") -> Judgement:
    hook = Hook(type="filter", number=2, priority=0, policy=policy)
    chain = ForeignChain(family=Family.INET, table="t", name="fwd", hook=hook, lines=lines)
    (found,) = judge(Ruleset(chains=(chain,), sets=sets), ASKED)
    return found


SOURCE = Payload(base="network", offset=12, length=4)
ACCEPT = Verdict(verdict="accept")


def held(*members: Member) -> ForeignSet:
    return ForeignSet(family=Family.INET, table="t", name="s", key_size=4, members=members)


def test_set_of_ranges_is_asked() -> None:
    low, high = POOL.network_address.packed, POOL.broadcast_address.packed
    line = rule(SOURCE, Lookup(set="s"), ACCEPT)
    assert names(nft(line, sets=(held(Member(low=low, high=high)),)), True) == {"answers", "in"}
    assert names(nft(line, sets=(held(),)), True) == ALL


def test_set_that_is_not_known_leaves_the_question_open() -> None:
    unknown = ForeignSet(family=Family.INET, table="t", name="s", key_size=4, members=None)
    found = nft(rule(SOURCE, Lookup(set="s"), ACCEPT), sets=(unknown,))
    assert names(found, None) == ALL


def test_verdict_map_sends_each_where_it_says() -> None:
    low, high = POOL.network_address.packed, POOL.broadcast_address.packed
    here = held(Member(low=low, high=high, data=Verdict(verdict="drop")))
    found = nft(rule(SOURCE, Lookup(set="s", data_register=0)), sets=(here,), policy="accept")
    assert names(found, True) == {"out", "among"}


@pytest.mark.parametrize(
    "word",
    [
        Opaque(name="osf"),
        Extension(kind="match", name="conntrack", revision=3, data=b"short"),
        Extension(kind="match", name="never heard of", revision=0, data=b""),
        Verdict(verdict="jump", chain="not there"),
        Extension(kind="target", name="NEW", revision=0, data=b""),
    ],
)
def test_what_is_not_understood_is_said_to_be_unclear(word: object) -> None:
    assert names(nft(rule(word, ACCEPT)), None) == ALL


def test_loop_of_chains_ends() -> None:
    loop = "-A FORWARD -j OTHER\n-A OTHER -j FORWARD"
    assert names(forward(loop), None) == ALL


def test_docker_is_known_and_the_command_names_its_chain() -> None:
    ruleset = read_saved(DOCKER.format(more=""), Family.IPV4)
    found = next(each for each in judge(ruleset, ASKED) if each.chain.name == "FORWARD")
    assert owners_of(found) == ("docker",)
    assert "by its policy" in advice.sentence(found, found.drops)
    assert advice.mend(found, found.drops, [POOL]) == (
        "iptables-legacy -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT",
        "iptables-legacy -I DOCKER-USER -d 10.244.0.0/16 -j ACCEPT",
    )


def test_docker_is_asked_behind_the_administrators_rules_and_before_the_return() -> None:
    chain = docker_chain("-A DOCKER-USER -s 192.0.2.1 -j DROP")
    wanted = admissions([POOL])
    assert [command[4:8] for command in docker.commands(chain, wanted)] == [
        ["DOCKER-USER", "2", "-s", "10.244.0.0/16"],
        ["DOCKER-USER", "3", "-d", "10.244.0.0/16"],
    ]
    assert [change.words for change in docker.changes(chain, wanted)] == [
        docker.rule(each) for each in wanted
    ]


def test_what_docker_holds_already_is_not_asked_again_and_what_is_stale_goes() -> None:
    ours = f'-m comment --comment "{MARK}" -j ACCEPT'
    chain = docker_chain(
        f"-A DOCKER-USER -s 10.244.0.0/16 {ours}\n"
        f"-A DOCKER-USER -s 10.9.0.0/16 {ours}\n"
        f"-A DOCKER-USER -d 10.244.0.0/16 {ours}\n"
        f"-A DOCKER-USER -d 10.244.0.0/16 {ours}\n"
        "-A DOCKER-USER -s 10.9.0.0/16 -j ACCEPT"
    )
    commands = list(docker.commands(chain, admissions([POOL])))
    assert [command[3:] for command in commands] == [
        ["-D", "DOCKER-USER", "4"],
        ["-D", "DOCKER-USER", "2"],
    ]


def test_rules_for_docker_are_known_again() -> None:
    for text in ("10.244.0.0/16", "10.244.7.64/26", "fd00:1::/48", "fd00:1::/61"):
        for each in admissions([ip_network(text)]):
            family = Family.IPV6 if ":" in text else Family.IPV4
            chain = ForeignChain(
                family=family,
                table="filter",
                name="DOCKER-USER",
                lines=(Line(words=docker.rule(each), comment=MARK),),
            )
            assert docker.standing(chain) == [(0, each)]


def test_ufw_is_asked_for_what_its_files_do_not_hold() -> None:
    rules = (
        "### tuple ### route:allow any any 0.0.0.0/0 any 10.244.0.0/16 in "
        f"comment={MARK.encode().hex()}\n"
        "### tuple ### route:allow any any 10.9.0.0/16 any 0.0.0.0/0 in "
        f"comment={MARK.encode().hex()}\n"
        "### tuple ### route:allow any any 10.8.0.0/16 any 0.0.0.0/0 in\n"
        "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
    )
    assert [" ".join(each) for each in ufw.commands(ufw.standing(rules), admissions([POOL]))] == [
        "ufw route delete allow to 10.9.0.0/16",
        f"ufw route allow to 10.244.0.0/16 comment {MARK}",
    ]
    assert ufw.is_enabled("# x\nENABLED=yes\n")
    assert not ufw.is_enabled("#ENABLED=yes\nENABLED=no\n")


def test_firewalld_keeps_what_others_have_bound() -> None:
    other = ip_network("10.9.0.0/16")
    found = firewalld.plan(
        [POOL, other],
        ["10.7.0.0/16", "10.6.0.0/16"],
        {"10.244.0.0/16": "", "10.9.0.0/16": "work", "10.7.0.0/16": "trusted", "10.6.0.0/16": ""},
    )
    assert (found.bind, found.take_back, found.forget) == (
        ("10.244.0.0/16",),
        ("10.7.0.0/16",),
        ("10.6.0.0/16",),
    )
    assert "10.9.0.0/16 is a source of its zone work" in found.refused[0]


def test_text_that_is_none_of_iptables_is_no_rule_and_no_error() -> None:
    for text in ("", "*filter", "COMMIT\n-A X\n:\n*\n", '*filter\n:FORWARD\n-A FORWARD "\nCOMMIT'):
        judge(read_saved(text, Family.IPV4), ASKED)


def test_comparison_of_an_unknown_register_is_unclear() -> None:
    found = nft(rule(Compare(op="==", value=b"\1"), ACCEPT))
    assert names(found, None) == ALL


def on_bridge(*lines: Line, policy: str = "accept", hook: int = 3, **uplink: Any) -> Judgement:
    """The judgement of a chain of the family bridge, for pods that leave by a bridge br0."""
    hooked = Hook(type="filter", number=hook, priority=0, policy=policy)
    chain = ForeignChain(family=Family.BRIDGE, table="t", name="o", hook=hooked, lines=lines)
    way = Uplink(name="br0", index=2, bridge="br0")
    asked = msgspec.structs.replace(ASKED, uplinks={4: msgspec.structs.replace(way, **uplink)})
    (found,) = judge(Ruleset(chains=(chain,)), asked)
    return found


IS_IPV4 = rule(Meta(key="protocol"), Compare(op="==", value=b"\x08\x00"), Verdict(verdict="drop"))
BY_OTHER = rule(
    Meta(key="bri_oifname"),
    Compare(op="==", value=b"br1".ljust(16, b"\0")),
    Verdict(verdict="drop"),
)


def test_frame_that_may_have_a_tag_leaves_the_question_open() -> None:
    assert names(on_bridge(IS_IPV4), True) == {"out"}
    assert names(on_bridge(IS_IPV4, name="br0.7", tagged=True), None) == {"out"}
    assert names(on_bridge(BY_OTHER, name="br0.7", tagged=True), False) == {"out"}
    assert names(on_bridge(name="br0.7", tagged=True, policy="drop"), True) == {"out"}


def test_address_and_connection_of_a_bridged_frame_are_not_known() -> None:
    by_address = rule(SOURCE, Compare(op="==", value=POOL.network_address.packed), ACCEPT)
    tracked = rule(Conntrack(key="state"), Compare(op="==", value=bytes(4)), ACCEPT)
    for line in (by_address, tracked):
        assert names(on_bridge(line, policy="drop"), None) == {"out"}
        assert names(on_bridge(line, policy="drop", hook=1), None) == {"answers", "in"}


def test_rule_that_wants_another_link_than_one_that_is_not_there_matches() -> None:
    """Linux 5.4 and later give such a rule an empty name."""
    other = Compare(op="!=", value=b"eth9".ljust(16, b"\0"))
    line = rule(Meta(key="oifname"), other, Verdict(verdict="drop"))
    hook = Hook(type="filter", number=0, priority=0, policy="accept")
    chain = ForeignChain(family=Family.INET, table="t", name="pre", hook=hook, lines=(line,))
    (found,) = judge(Ruleset(chains=(chain,)), ASKED)
    assert names(found, True) == ALL | {"to-node"}


def test_policy_is_dockers_where_it_has_chains_that_nothing_leads_to_yet() -> None:
    text = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\nCOMMIT\n"
    (found,) = judge(read_saved(text, Family.IPV4), ASKED)
    assert owners_of(found) == ("docker",)
    assert advice.mend(found, found.drops, [POOL])[0] == (
        "iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT"
    )


def test_bridge_below_vlans_is_looked_for_and_a_circle_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def link(index: int, name: str, kind: str, lower: int = 0) -> Link:
        return Link(index, name, True, b"", 1500, 0, "", kind, lower)

    links = [
        link(2, "br0", "bridge"),
        link(3, "br0.7", "vlan", 2),
        link(4, "br0.7.8", "vlan", 3),
        link(5, "ring", "vlan", 5),
        link(6, "eth0", ""),
    ]
    monkeypatch.setattr(foreign, "find_link", lambda _, name: {x.name: x for x in links}.get(name))
    monkeypatch.setattr(foreign, "find_index", lambda _, at: {x.ifindex: x for x in links}.get(at))
    found = foreign.question_of(
        Order(uplinks=dict(enumerate(("br0", "br0.7", "br0.7.8", "ring", "eth0", "gone"))))
    )
    assert [(each.index, each.bridge, each.tagged) for each in found.uplinks.values()] == [
        (2, "br0", False),
        (3, "br0", True),
        (4, "br0", True),
        (5, "", False),
        (6, "", False),
        (0, "", False),
    ]
