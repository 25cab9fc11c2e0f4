"""status, ipam, explain, version: what a person sees."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cli_run import fake, nobody, run
from fake_agent import CREATED, Fake

from weft import __version__
from weft.cli.columns import count_of, span, table
from weft.cli.status import status_text
from weft.model.reasons import REASONS
from weft.wire.api import AddressUse, BlockUse, IpamCheck, IpamProblem, IpamShow
from weft.wire.status import (
    LARGEST,
    Capability,
    Families,
    Family,
    Format,
    Mtu,
    PoolUse,
    Sessions,
    Status,
    WayOut,
    WaysOut,
    Why,
)

__all__ = ["fake", "nobody"]

FULL = Status(
    version="0.1.0",
    node="node-a",
    kernel="6.18.5",
    ready=False,
    reasons=(Why(reason="exhausted", message="no IPv4 address is left"),),
    warnings=(Why(reason="not-ready", message="the ruleset is unprotected"),),
    started=CREATED,
    families=Families(ipv4=Family(enabled=True), ipv6=Family(enabled=False, why="off on the host")),
    ways_out=WaysOut(
        ipv4=WayOut(present=True, link="eth0", gateway="192.0.2.1"),
        ipv6=WayOut(present=False, why="no default route"),
    ),
    mtu=Mtu(value=1500, source="link eth0"),
    pools=(
        PoolUse(name="default", cidr="10.244.0.0/16", size=65534, used=2, free=65532, blocks=1),
        PoolUse(name="v6", cidr="fd00::/48", size=LARGEST, free=LARGEST),
    ),
    attachments={"ready": 2, "leaving": 0},
    drops={"spoofed": 3, "ra": 0},
    sessions=(
        Sessions(verb="ADD", result="exhausted", count=1),
        Sessions(verb="ADD", result="ok", count=12),
        Sessions(verb="DEL", result="ok", count=10),
    ),
    formats=(Format(name="journal", format=1, path="/run/weft/journal.db"),),
    capabilities=(
        Capability(name="veth", present=True),
        Capability(name="persistent tables", present=False, why="kernel before 6.9"),
    ),
)

GOLDEN = """\
Node:         node-a, not ready
              no IPv4 address is left (exhausted)
Agent:        weft 0.1.0, up 5m, kernel 6.18.5
Families:     IPv4; no IPv6 (off on the host)
Way out:      IPv4 by eth0 via 192.0.2.1; no IPv6 (no default route)
MTU:          1500 (link eth0)
Attachments:  2 ready
Drops:        3 spoofed
Calls:        ADD   1 exhausted, 12 ok
              DEL   10 ok
Lacking:      persistent tables: kernel before 6.9
Files:        journal /run/weft/journal.db (format 1)
Warnings:     the ruleset is unprotected

NAME      CIDR            SIZE    USED   COOLING   FREE    BLOCKS   DISABLED
default   10.244.0.0/16   65534   2      0         65532   1        false
v6        fd00::/48       2^80    0      0         2^80    0        false"""


def test_status_shows_the_whole_node() -> None:
    assert status_text(FULL, now=CREATED + 300) == GOLDEN


def test_status_of_an_agent_that_says_little_is_still_a_page() -> None:
    text = status_text(Status(version="0.1.0", node="n", ready=True))
    assert text.startswith("Node:         n, ready\n")
    assert text.endswith("No pools.")


def test_exit_status_of_status_is_readiness(fake: Fake) -> None:
    assert run("status").status == 0
    fake.answer = FULL
    ran = run("status")
    assert (ran.status, ran.err) == (1, "")
    assert "not ready" in ran.out


def test_status_as_data_has_everything(fake: Fake) -> None:
    fake.answer = FULL
    ran = run("status", "-o", "json")
    assert msgspec.convert(json.loads(ran.out), Status) == FULL
    assert "bootId" not in run("status", "-o", "yaml").out  # what is not known is left out


def test_answer_of_a_newer_agent_is_read(fake: Fake) -> None:
    class Newer(Status, frozen=True, kw_only=True):
        invented: str = "x"

    fake.answer = Newer(version="9.0", node="node-a", ready=True, invented="later")
    assert run("status").status == 0


def test_colour_only_in_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mnot ready\x1b[0m" in status_text(FULL)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in status_text(FULL)


USE = IpamShow(
    node="node-a",
    pools=(PoolUse(name="default", cidr="10.244.0.0/16", size=65534, used=1, blocks=1),),
    blocks=(BlockUse(cidr="10.244.0.0/26", pool="default", used=1, cooling=1, free=62),),
    addresses=(
        AddressUse(address="10.244.0.5", pool="default", state="used", owner="weft/3f2a/eth0"),
        AddressUse(address="10.244.0.6", pool="default", state="cooling"),
    ),
)


def test_ipam_show_shows_pools_blocks_addresses_and_one(fake: Fake) -> None:
    fake.use = USE
    assert run("ipam", "show").out == (
        "NAME      CIDR            SIZE    USED   COOLING   FREE   BLOCKS   DISABLED\n"
        "default   10.244.0.0/16   65534   1      0         0      1        false\n"
    )
    assert run("ipam", "show", "--blocks").out == (
        "BLOCK           POOL      USED   COOLING   FREE\n"
        "10.244.0.0/26   default   1      1         62\n"
    )
    assert run("ipam", "show", "--addresses").out == (
        "ADDRESS      POOL      STATE     OWNER\n"
        "10.244.0.5   default   used      weft/3f2a/eth0\n"
        "10.244.0.6   default   cooling   -\n"
    )
    assert run("ipam", "show", "10.244.0.5").out == (
        "10.244.0.5 is used by weft/3f2a/eth0, in pool default\n"
    )
    assert run("ipam", "show", "10.9.9.9").out == "10.9.9.9 is not in use on this node\n"
    assert msgspec.convert(json.loads(run("ipam", "show", "-o", "json").out), IpamShow) == USE


def test_ipam_check_fails_when_something_differs(fake: Fake) -> None:
    fake.audit = IpamCheck(addresses=2, attachments=2)
    assert run("ipam", "check") == (0, "2 addresses, 2 attachments, no problems\n", "")
    fake.audit = IpamCheck(
        addresses=2,
        attachments=1,
        problems=(
            IpamProblem(
                what="leaked",
                address="10.244.0.5",
                text="no attachment has it",
                mend="weft ipam release 10.244.0.5",
            ),
        ),
    )
    ran = run("ipam", "check")
    assert ran.status == 1
    assert ran.out == (
        "PROBLEM   ADDRESS      WHAT IS KNOWN          MEND\n"
        "leaked    10.244.0.5   no attachment has it   weft ipam release 10.244.0.5\n"
        "2 addresses, 1 attachments, 1 problem\n"
    )


def test_ipam_release_gives_back_what_is_in_use_and_nothing_else(fake: Fake) -> None:
    fake.use = USE
    assert run("ipam", "release", "10.244.0.5").out == (
        "10.244.0.5 released to pool default, was held by weft/c1/eth0; "
        "it may be given out again in 30s\n"
    )
    run("ipam", "release", "10.244.0.6", "--force")
    assert fake.released == [("10.244.0.5", False), ("10.244.0.6", True)]
    assert run("ipam", "release", "10.9.9.9").status == 1
    assert run("ipam", "release", "10.0.0.0/8").status == 1
    assert len(fake.released) == 2


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_is_explained_without_an_agent(reason: str, nobody: Path) -> None:
    ran = run("explain", reason)
    assert ran.status == 0
    assert REASONS[reason].summary in ran.out
    assert REASONS[reason].action in ran.out
    assert f"CNI code:  {REASONS[reason].cni} " in ran.out


@pytest.mark.parametrize("code", sorted({each.cni for each in REASONS.values()}))
def test_every_code_is_explained_with_its_reasons(code: int) -> None:
    out = run("explain", str(code)).out
    for name, reason in REASONS.items():
        assert (f"\n{name}\n" in out) == (reason.cni == code)
    assert "of this plugin" not in out


def test_explain_lists_all_and_knows_what_was_meant() -> None:
    assert len(run("explain").out.splitlines()) == len(REASONS) + 1
    ran = run("explain", "exhaustd")
    assert (ran.status, ran.out) == (2, "")
    assert "did you mean 'exhausted'" in ran.err
    assert run("explain", "12345").status == 2


def test_version_names_both_ends_and_minds_no_absent_agent(fake: Fake) -> None:
    assert run("version").out == f"weft    {__version__}\nagent   0.1.0 on node node-a\n"
    ran = run("--socket", "/nowhere/agent.sock", "version", "-o", "json")
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out)["agent"] is None
    assert run("--version").out == f"weft {__version__}\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (301, "5m1s"),
        (3600, "60m"),
        (4 * 3600 + 60, "4h1m"),
        (47 * 3600, "47h"),
        (3 * 86400, "3d"),
        (3 * 86400 + 7200, "3d2h"),
        (400 * 86400, "400d"),
        (800 * 86400, "2y70d"),
    ],
)
def test_spans_have_the_units_that_matter(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_table_pads_all_columns_but_the_last() -> None:
    assert table(["A", "B"], [["1", "22"], ["333", ""]]) == "A     B\n1     22\n333   -"


def test_counts_are_exact_until_they_are_too_long_to_read() -> None:
    assert count_of("10.0.0.0/8", 1 << 24) == "16777216"
    assert count_of("fd00::/48", LARGEST) == "2^80"
