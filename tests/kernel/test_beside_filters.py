"""Other packet filters, as the kernel has them: judged, asked, followed. Without their daemons.

What stands in the chains is written by the programs that people use, nft and both kinds of
iptables; the judgement is held against packets that the same kernel lets through, or does not.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest
from namespace_fixture import new_namespace, on_a_node

from weft.agent import firewalls
from weft.agent.addresses import Addresses
from weft.agent.asking import Order
from weft.agent.events import Log
from weft.agent.firewalls import Firewalls
from weft.agent.foreign import Seen, look
from weft.agent.insistence import Insistence
from weft.agent.node import Node
from weft.cli.checks_firewalls import firewalls as diagnosed
from weft.cli.machine import Machine
from weft.engines import iptables
from weft.firewalls.report import reported
from weft.kernel.host import Network
from weft.lab import entering
from weft.model.settings import Settings
from weft.wire.status import ForeignFirewall

OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:51::1"}
HERE = {4: "198.51.100.2", 6: "2001:db8:51::2"}
KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}
POOLS = (ip_network("10.244.0.0/16"), ip_network("fd00:244::/48"))
LATER = (ip_network("10.99.0.0/16"), ip_network("fd00:99::/48"))
LIMIT = 30.0
DOCKER_27 = (
    "{p} -N DOCKER-USER; {p} -A DOCKER-USER -j RETURN; "
    "{p} -P FORWARD DROP; {p} -I FORWARD -j DOCKER-USER"
)
# as Debian 12's Docker leaves it with `ip6tables` on, while no network of its own has IPv6
DOCKER_20 = (
    "ip6tables -P FORWARD DROP; ip6tables -N DOCKER; ip6tables -N DOCKER-ISOLATION-STAGE-1; "
    "ip6tables -A DOCKER-ISOLATION-STAGE-1 -j RETURN"
)


def sh(line: str) -> str:
    done = subprocess.run(["sh", "-ec", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def uplink(*, bridge: bool) -> int:
    """Give this node a way out; the namespace of the outside, as a descriptor."""
    outside = new_namespace()
    there = f"/proc/{os.getpid()}/fd/{outside}"
    sh(f"ip link set lo up; ip link add p0 type veth peer name eth0 netns {there}")
    sh("ip link set p0 up")
    name = "p0"
    if bridge:
        sh("ip link add br0 type bridge forward_delay 0; ip link set br0 up")
        sh("ip link set p0 master br0")
        name = "br0"
    lines = ["link set lo up", "link set eth0 up"]
    for version in (4, 6):
        length = 24 if version == 4 else "64 nodad"
        lines.append(f"addr add {OUTSIDE[version]}/{length} dev eth0")
        sh(f"ip addr add {HERE[version]}/{length} dev {name}")
        sh(f"ip -{version} route add default via {OUTSIDE[version]}")
    entering.ip_batch(there, "\n".join(lines) + "\n")
    return outside


def passes(outside: int, version: int) -> bool:
    """Whether a datagram to the outside is answered from there."""
    network = f"/proc/self/fd/{outside}"
    with (
        entering.socket_in(network, KINDS[version], socket.SOCK_DGRAM) as far,
        socket.socket(KINDS[version], socket.SOCK_DGRAM) as near,
    ):
        far.bind((OUTSIDE[version], 4444))
        far.settimeout(0.2)
        near.settimeout(0.2)
        try:
            near.sendto(b"ask", (OUTSIDE[version], 4444))
            _, asker = far.recvfrom(16)
            far.sendto(b"answer", asker)
            return near.recv(16) == b"answer"
        except (TimeoutError, PermissionError):
            return False


def reachable(outside: int) -> None:
    """Wait until both ends have their carriers and know their neighbours."""
    end = time.monotonic() + LIMIT
    while not (passes(outside, 4) and passes(outside, 6)):
        assert time.monotonic() < end


def dropping(**how: Any) -> tuple[ForeignFirewall, ...]:
    """The chains that keep pods from having a network."""
    seen = look(Order(pools=POOLS, **how))
    assert seen.troubles == ()
    return tuple(each for each in reported(seen.judgements, POOLS) if each.drops or each.unclear)


BRIDGED: list[tuple[str, set[str], set[int]]] = [
    # what stands in the chains of the family bridge; flows that are said to be dropped; versions
    ("output { type filter hook output priority 0; policy drop; }", {"out"}, {4, 6}),
    ("input { type filter hook input priority 0; policy drop; }", {"answers", "in"}, {4, 6}),
    ("post { type filter hook postrouting priority 0; ether type ip drop; }", {"out"}, {4}),
    ("pre { type filter hook prerouting priority 0; ip6 version 6 drop; }", {"answers", "in"}, {6}),
    ('output { type filter hook output priority 0; iifname "p0" drop; }', set(), set()),
    ("output { type filter hook output priority 0; ether type arp accept; }", set(), set()),
    ("forward { type filter hook forward priority 0; policy drop; }", set(), set()),
]


@on_a_node
def test_filter_of_the_bridge_by_which_pods_leave_is_judged_as_the_kernel_does() -> None:
    outside = uplink(bridge=True)
    reachable(outside)
    for chain, flows, versions in BRIDGED:
        _judged_right(outside, chain, flows, versions)
        sh("nft delete table bridge t")


def _judged_right(outside: int, chain: str, flows: set[str], versions: set[int]) -> None:
    sh(f"nft -f - <<'END'\ntable bridge t {{\n chain {chain}\n}}\nEND")
    found = dropping(uplinks={4: "br0", 6: "br0"})
    assert {name for each in found for name in each.drops} == flows, chain
    for version in (4, 6):
        assert passes(outside, version) == (version not in versions), chain
    for each in found:
        assert each.chain.startswith("chain bridge t ")
        sh(each.mend)
    assert dropping(uplinks={4: "br0", 6: "br0"}) == ()
    sh("ip neigh flush dev br0")
    assert passes(outside, 4) and passes(outside, 6)


@on_a_node
def test_filter_of_a_bridge_that_pods_do_not_pass_is_not_judged() -> None:
    outside = uplink(bridge=False)
    sh("ip link add br0 type bridge; ip link set br0 up")
    hook = "type filter hook output priority 0; policy drop;"
    sh(f"nft 'add table bridge t; add chain bridge t o {{ {hook} }}'")
    assert dropping(uplinks={4: "p0", 6: "p0"}) == ()
    reachable(outside)


@on_a_node
def test_ebtables_is_named_with_its_own_command() -> None:
    outside = uplink(bridge=True)
    reachable(outside)
    sh("ebtables -P OUTPUT DROP")
    (found,) = dropping(uplinks={4: "br0", 6: "br0"})
    assert found.chain == "chain bridge filter OUTPUT"
    assert not passes(outside, 4)
    sh(found.mend)
    assert dropping(uplinks={4: "br0", 6: "br0"}) == ()
    assert passes(outside, 4) and passes(outside, 6)


@on_a_node
def test_legacy_ebtables_are_named_where_frames_of_pods_pass_a_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables, "MODULES", tmp_path / "modules")
    iptables.MODULES.write_text("ebtable_filter 16384 1 - Live 0x0\nebtables 49152 1 - Live 0x0\n")
    uplink(bridge=True)
    (said,) = look(Order(pools=POOLS, uplinks={4: "br0"})).troubles
    assert "ebtable_filter" in said and "bridge br0" in said and "ebtables-legacy -L" in said
    assert look(Order(pools=POOLS, uplinks={4: "p0"})).troubles == ()


HARDENED = [
    (
        "nft 'add table inet filter; add chain inet filter forward { type filter hook forward "
        "priority 0; policy drop; }; add rule inet filter forward tcp dport 443 accept'",
        ["chain inet filter forward"],
    ),
    (
        "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP",
        ["chain ip filter FORWARD", "chain ip6 filter FORWARD"],
    ),
    (
        "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
        [
            "chain ip filter FORWARD of legacy iptables",
            "chain ip6 filter FORWARD of legacy iptables",
        ],
    ),
]


@pytest.mark.parametrize(("rules", "chains"), HARDENED, ids=["nft", "iptables-nft", "legacy"])
@on_a_node
def test_doctor_without_an_agent_names_a_hardened_images_chain_and_the_command(
    rules: str, chains: list[str]
) -> None:
    uplink(bridge=False)
    sh(rules)
    found = list(diagnosed(Machine()))
    assert [each.level for each in found] == ["bad"] * len(chains)
    for finding, chain in zip(found, chains, strict=True):
        assert finding.text.startswith(f"{chain} (nobody known) drops ")
        sh(finding.mend)
    assert [each.level for each in diagnosed(Machine())] == ["ok"]


@on_a_node
def test_docker_that_drops_ipv6_without_a_place_for_others_is_named_and_not_touched() -> None:
    uplink(bridge=False)
    sh(DOCKER_20)
    before = sh("ip6tables-save | grep -v '^#'")
    seen = look(Order(pools=POOLS, uplinks={6: "p0"}, admit=True))
    assert (seen.asked, seen.troubles) == ((), ())
    assert sh("ip6tables-save | grep -v '^#'") == before
    (found,) = reported(seen.judgements, POOLS)
    assert found.owners == ("docker",)
    assert found.mend == (
        "ip6tables -I FORWARD -s fd00:244::/48 -j ACCEPT; "
        "ip6tables -I FORWARD -d fd00:244::/48 -j ACCEPT"
    )
    sh(found.mend)
    assert dropping(uplinks={6: "p0"}) == ()


PROGRAMS = [("iptables-nft", "ip6tables-nft"), ("iptables-legacy", "ip6tables-legacy")]


@pytest.mark.parametrize("programs", PROGRAMS, ids=lambda each: each[0])
@on_a_node
def test_what_was_asked_for_follows_the_pools(programs: tuple[str, str]) -> None:
    uplink(bridge=False)
    for program in programs:
        sh(DOCKER_27.format(p=program))
    both = {4: "p0", 6: "p0"}

    def standing() -> str:
        return "".join(sh(f"{program} -S DOCKER-USER") for program in programs)

    before = standing()

    def asked(admit: bool, *pools: Network) -> Seen:
        seen = look(Order(pools=pools, uplinks=both, admit=admit))
        assert seen.troubles == ()
        return seen

    asked(True, *POOLS)
    assert [standing().count(str(pool)) for pool in (*POOLS, *LATER)] == [2, 2, 0, 0]
    assert asked(True, *POOLS).asked == ()
    asked(True, *POOLS, *LATER)
    assert [standing().count(str(pool)) for pool in (*POOLS, *LATER)] == [2, 2, 2, 2]
    gone = asked(True, *LATER)
    assert {words for _, words in gone.taken_back} == {
        f"{way} {pool}" for way in ("from", "to") for pool in POOLS
    }
    assert [standing().count(str(pool)) for pool in (*POOLS, *LATER)] == [0, 0, 2, 2]
    asked(False, *LATER)
    assert standing() == before


@dataclass
class Subject:
    """The agent's part of a node: which pools there are now."""

    pools: list[Network] = field(default_factory=list)

    def pool_prefixes(self) -> list[Network]:
        return list(self.pools)

    @property
    def facts(self) -> Any:
        on = type("Family", (), {"on": True})
        names = {"ipv4": on, "ipv6": on, "uplink4": "p0", "uplink6": "p0"}
        return type("Facts", (), names)


async def until(judged: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not judged():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@on_a_node
def test_agent_follows_pools_and_leaves_alone_who_takes_its_rules_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(firewalls, "GATHER", 0.01)
    monkeypatch.setattr(firewalls, "PAUSE", 0.0)
    monkeypatch.setattr(firewalls, "SHARE", 0.0)
    uplink(bridge=False)
    sh(DOCKER_27.format(p="iptables-nft"))
    subject = Subject([POOLS[0]])
    settings = Settings(foreign_firewall="admit")
    log = Log("error")
    made = Firewalls(
        settings,
        cast(Node, subject),
        cast(Addresses, subject),
        frozenset(),
        log,
        Insistence(often=2, lately=60.0, pause=1.5),
    )

    def stands(pool: Network) -> bool:
        return str(pool) in sh("iptables-nft -S DOCKER-USER")

    def robbed() -> None:
        sh("iptables-nft -F DOCKER-USER")

    async def story() -> None:
        made.start()
        try:
            await until(lambda: stands(POOLS[0]))
            subject.pools = [LATER[0]]
            made.again()
            await until(lambda: stands(LATER[0]) and not stands(POOLS[0]))
            for _ in range(2):
                assert made.warnings() == []
                robbed()
                await until(lambda: stands(LATER[0]))
            await until(lambda: bool(made.warnings()))
            (said,) = (each.message for each in made.warnings())
            assert "keeps taking our rules from Docker" in said
            before = made.seen
            robbed()
            await until(lambda: made.seen is not before)
            assert made.seen is not None and made.seen.asked == ()
            assert not stands(LATER[0])
            await until(lambda: stands(LATER[0]))  # the pause is over, and nothing announced it
            assert [each.reason for each in log.events].count("Contested") == 1
        finally:
            made.stop()

    asyncio.run(story())
