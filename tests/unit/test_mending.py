"""`weft doctor --fix`: what may be run, who is asked, and what is looked at again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from cli_run import fake, nobody, run
from fake_agent import Fake

from weft.cli import doctor, mending
from weft.cli.mending import Consent, mend, planned
from weft.model.errors import PeerFault
from weft.wire.api import Finding

__all__ = ["fake", "nobody"]

OURS = Finding(id="a", level="bad", text="off", mend="sysctl -w net.ipv4.ip_forward=1")
THEIRS = Finding(
    id="b", level="warn", text="left", mend="ip link delete cni0; ip link delete cni1", owner="cni"
)
BY_HAND = Finding(id="c", level="bad", text="full", mend="free space on /run")


class Node:
    """Findings that go away when their commands have run; `stubborn` ones stay."""

    def __init__(self, *found: Finding, stubborn: str = "", broken: str = "") -> None:
        self.found = [planned(each) for each in found]
        self.ran: list[str] = []
        self.told: list[str] = []
        self.looks = 0
        self._stubborn, self._broken = stubborn, broken

    def judge(self) -> list[Finding]:
        self.looks += 1
        return [each for each in self.found if not self._is_done(each)]

    def _is_done(self, finding: Finding) -> bool:
        ran = [" ".join(step) in self.ran for step in finding.steps]
        return bool(ran) and all(ran) and finding.id != self._stubborn

    def run(self, step: tuple[str, ...]) -> None:
        command = " ".join(step)
        assert any(command in line for line in self.told), "it ran before it was shown"
        if command == self._broken:
            raise PeerFault(f"`{command}` failed: no")
        self.ran.append(command)

    def mend(self, consent: Consent) -> dict[str, str]:
        attempts, self.left = mend(self.judge, consent, self.run, self.told.append)
        return {each.id: each.result for each in attempts}


@pytest.mark.parametrize(
    "text",
    [
        "sysctl -w net.ipv6.conf.all.forwarding=1",
        "weft ipam release 10.0.0.5",
        "weft ipam release fd00::5",
        "install -m 0755 /usr/lib/weft/launcher /opt/cni/bin/weft",
        "chown root:root /run/weft && chmod 0700 /run/weft",
        "systemctl start weft",
    ],
)
def test_what_is_ours_may_be_run_by_machine(text: str) -> None:
    found = planned(Finding(id="x", level="bad", text="", mend=text))
    assert " && ".join(" ".join(step) for step in found.steps) == text
    assert found.owner == ""


@pytest.mark.parametrize(
    "text",
    [
        "mv '/etc/cni/net.d/05 a.conf' /root/",
        "ip link delete flannel.1; ip link set tunl0 down",
        "nft delete table ip cni_hostport",
        "nft insert rule inet host forward ip saddr 10.244.0.0/16 accept",
        "nft insert rule inet host forward iifname wf* accept",
        "iptables -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT",
        "ufw route allow from 10.244.0.0/16",
        "firewall-cmd --permanent --zone=trusted --add-source=10.0.0.0/8; firewall-cmd --reload",
        "weft install --take-over",
    ],
)
def test_what_is_others_has_an_owner(text: str) -> None:
    found = planned(Finding(id="x", level="bad", text="", mend=text))
    assert found.steps
    assert found.owner == "others"
    assert planned(Finding(id="x", level="bad", text="", mend=text, owner="me")).owner == "me"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "free space on /run",
        "weft explain exhausted",
        "weft apply -f POOL.yaml",
        "nft list chain ip filter FORWARD",
        "rm -r /var/lib/cni/networks",
        "iptables-save | grep -vE 'CNI-' | iptables-restore",
        "ip route delete 10.0.0.0/24 dev cni0 if nobody needs it; else disable pool default",
        "sysctl -w net.ipv4.ip_forward=1; rm -r /",
        "sysctl -w a=1\nreboot",
        "ip link delete $(reboot)",
        "ip link delete a`reboot`",
        "chmod 0755 /a /b",
        "mv /etc/cni/net.d/a.conf /etc/shadow /root/",
        "nft insert rule ip x y accept | reboot accept",
    ],
)
def test_everything_else_is_for_a_person(text: str) -> None:
    assert planned(Finding(id="x", level="bad", text="", mend=text)).steps == ()


def test_a_finding_that_is_in_order_has_nothing_to_run() -> None:
    assert planned(Finding(id="x", level="ok", text="", mend="systemctl start weft")).steps == ()


def test_yes_mends_ours_and_leaves_others_alone() -> None:
    node = Node(OURS, THEIRS, BY_HAND)
    assert node.mend(Consent(yes=True)) == {"a": "mended", "b": "left"}
    assert node.ran == ["sysctl -w net.ipv4.ip_forward=1"]
    assert [each.id for each in node.left] == ["b", "c"]
    assert any("--foreign cni allows it" in line for line in node.told)


@pytest.mark.parametrize("named", ["cni", "b"])
def test_others_are_mended_when_they_are_named(named: str) -> None:
    node = Node(OURS, THEIRS)
    assert node.mend(Consent(yes=True, foreign=[named])) == {"a": "mended", "b": "mended"}
    assert node.ran[1:] == ["ip link delete cni0", "ip link delete cni1"]


def test_each_is_asked_for_and_the_question_names_the_owner() -> None:
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return "cni" in question

    node = Node(OURS, THEIRS)
    assert node.mend(Consent(ask=answer)) == {"a": "declined", "b": "mended"}
    assert asked == ["run it", "this changes what belongs to cni; run it"]
    assert all(not command.startswith("sysctl") for command in node.ran)


def test_everything_is_looked_at_again_and_nothing_twice_tried() -> None:
    node = Node(OURS, THEIRS, stubborn="a")
    assert node.mend(Consent(yes=True, foreign=["cni"])) == {"a": "still", "b": "mended"}
    assert node.looks == 3
    assert len(node.ran) == 3


def test_command_that_fails_ends_its_finding_and_not_the_others() -> None:
    node = Node(THEIRS, OURS, broken="ip link delete cni0")
    assert node.mend(Consent(yes=True, foreign=["cni"])) == {"b": "failed", "a": "mended"}
    assert "ip link delete cni1" not in node.ran
    assert any("`ip link delete cni0` failed: no" in line for line in node.told)


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Node:
    node = Node(OURS, THEIRS, BY_HAND)

    def tolerant(_socket: str) -> Callable[[tuple[str, ...]], None]:
        return lambda step: node.ran.append(" ".join(step))

    monkeypatch.setattr(doctor, "diagnose", lambda _client: node.judge())
    monkeypatch.setattr(doctor, "runner", tolerant)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return node


def test_command_line_asks_and_says_what_is_left(ill: Node) -> None:
    ran = run("doctor", "--fix", stdin="y\nn\n")
    assert ill.ran == ["sysctl -w net.ipv4.ip_forward=1"]
    assert ran.out == (
        "bad   off\n      $ sysctl -w net.ipv4.ip_forward=1\n      mended\n"
        "warn  left\n      $ ip link delete cni0\n      $ ip link delete cni1\n      not run\n\n"
        "warn  left\n      -> ip link delete cni0; ip link delete cni1  [--fix; changes cni]\n"
        "bad   full\n      -> free space on /run\n1 bad, 1 to look at\n"
    )
    assert ran.err.count("[y/N]") == 2
    assert ran.status == 1
    ill.ran.clear()
    assert run("doctor", "--fix").status == 1  # nobody answers
    assert ill.ran == []


def test_data_tells_what_was_tried_and_what_is_left(ill: Node) -> None:
    told = json.loads(run("doctor", "--fix", "--yes", "-o", "json").out)
    assert [(each["id"], each["result"]) for each in told["attempts"]] == [
        ("a", "mended"),
        ("b", "left"),
    ]
    assert [each["id"] for each in told["items"]] == ["b", "c"]
    told = json.loads(run("doctor", "-o", "json").out)
    assert {each["id"]: "steps" in each for each in told["items"]} == {"b": True, "c": False}


@pytest.mark.parametrize(
    "words",
    [("--yes",), ("--foreign", "x"), ("--fix", "-o", "json"), ("--fix", "--foreign", "x")],
)
def test_options_that_mean_nothing_alone_are_refused(ill: Node, words: tuple[str, ...]) -> None:
    assert run("doctor", *words).status == 2
    assert ill.ran == []


def test_only_root_mends(ill: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = run("doctor", "--fix", "--yes")
    assert (ran.status, ill.ran) == (1, [])
    assert "only root" in ran.err


def test_weft_is_this_program_with_the_same_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(mending.programs, "run", lambda argv, patience: ran.append(tuple(argv)))
    mending.runner("/run/x.sock")(("weft", "ipam", "release", "10.0.0.5"))
    assert ran[0][1:] == (
        "-m",
        "weft.main",
        "--socket",
        "/run/x.sock",
        "ipam",
        "release",
        "10.0.0.5",
    )
