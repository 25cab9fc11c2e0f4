"""`./dev up` and `./dev down` on a throw-away machine: shown, repeated, killed, given back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import CHECKOUT, Machine, machine

WARM_LIMIT = 10.0
SLACK = 5
ADDRESS = re.compile(r"attached: (weft-demo-\w) (\S+) (\S+) in")


@pytest.fixture
def box() -> Iterator[Machine]:
    with machine("weft-up") as made:
        yield made


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sh(box: Machine, line: str) -> str:
    return good(box.run(["sh", "-ec", line]))


def add(box: Machine, name: str) -> None:
    """Attach a container that is not the demo's, in a namespace that is there."""
    conf = json.dumps({"cniVersion": "1.1.0", "name": "weft", "type": "weft"})
    env = f"CNI_COMMAND=ADD CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0"
    good(box.run(["sh", "-c", f"echo '{conf}' | {env} CNI_PATH=/opt/cni/bin /opt/cni/bin/weft"]))


def test_up_shows_two_containers_reaching_each_other_and_the_outside(box: Machine) -> None:
    told = good(box.dev("up"))
    attached = dict.fromkeys(name for name, *_ in ADDRESS.findall(told))
    assert list(attached) == ["weft-demo-a", "weft-demo-b"]
    for family in ("IPv4", "IPv6"):
        assert re.search(rf"{family}  weft-demo-a -> weft-demo-b  TCP", told), told
        assert re.search(rf"{family}  weft-demo-b -> weft-demo-a  TCP", told), told
    for seen in ("192.0.2.1", "2001:db8:77::1"):
        assert told.count(f"seen there as {seen} (this node)") == 4, told
    assert "./dev down" in told
    good(box.run(["weft", "status"]))


def test_network_goes_on_after_up_and_is_given_back_whole_by_down(box: Machine) -> None:
    before = box.state()
    good(box.dev("up"))
    good(box.run(["ip", "netns", "exec", "weft-demo-a", "ip", "route", "get", "192.0.2.2"]))
    assert box.changes_since(before) != []
    good(box.dev("down"))
    assert box.changes_since(before) == []


def test_machine_without_any_uplink_is_shown_the_same() -> None:
    with machine("weft-alone", uplink=False) as box:
        before = box.state()
        told = good(box.dev("up"))
        assert told.count("(this node)") == 8, told
        good(box.dev("down"))
        assert box.changes_since(before) == []


def test_machine_without_ipv6_is_shown_ipv4(box: Machine) -> None:
    for scope in ("all", "default"):
        path = f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"
        good(box.run(["sh", "-c", f"echo 1 >{path}"]))
    before = box.state()
    told = good(box.dev("up"))
    assert told.count("seen there as 192.0.2.1 (this node)") == 4, told
    assert "IPv6  weft-demo" not in told
    good(box.dev("down"))
    assert box.changes_since(before) == []


def test_warm_up_is_quick_and_can_be_repeated(box: Machine) -> None:
    before = box.state()
    good(box.dev("up"))
    began = time.monotonic()
    good(box.dev("up"))
    assert time.monotonic() - began < WARM_LIMIT * SLACK
    good(box.dev("down"))
    assert "nothing to give back" in box.dev("down").stderr
    assert box.changes_since(before) == []


def test_dry_run_names_every_file_that_up_makes_and_changes_nothing(box: Machine) -> None:
    before = box.state()
    listed = good(box.dev("up", "--dry-run"))
    assert box.changes_since(before) == []
    good(box.dev("up"))
    made = [line for line in box.changes_since(before) if line.startswith("+ files: ")]
    names = {line.split(" ", 3)[3] for line in made}
    places = [line.split()[0] for line in listed.splitlines() if line.startswith("    ")]
    assert names, made
    unlisted = {n for n in names if not any(n == p or n.startswith(p + "/") for p in places)}
    assert unlisted == set()


def test_dry_run_needs_no_root(box: Machine) -> None:
    done = subprocess.run(
        [str(CHECKOUT / "dev"), "up", "--dry-run"],
        user=65534,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "WEFT_VENV": "/nonexistent"},
        timeout=20,
    )
    assert "/opt/cni/bin/weft" in good(done)


def test_down_refuses_while_foreign_containers_are_attached(box: Machine) -> None:
    good(box.run(["ip", "netns", "add", "foreign"]))
    good(box.dev("up"))
    add(box, "foreign")
    refused = box.dev("down")
    assert refused.returncode == 1
    assert "weft/foreign/eth0" in refused.stderr
    good(box.run(["weft", "status"]))
    assert "demo/weft-demo-a" in good(box.run(["weft", "get", "attachments"]))


def test_down_by_force_detaches_foreign_containers_too(box: Machine) -> None:
    good(box.run(["ip", "netns", "add", "foreign"]))
    before = box.state()
    good(box.dev("up"))
    add(box, "foreign")
    good(box.dev("down", "--force"))
    assert box.changes_since(before) == []


def test_down_without_a_running_agent_gives_back_everything(box: Machine) -> None:
    """Also what only settings bring: the group's socket, rules that another firewall was asked for;
    and what trouble leaves in directories of ours."""
    sh(box, "mkdir -p /etc/weft; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER")
    sh(box, "printf 'socket: {group: 4343}\nforeignFirewall: admit\n' >/etc/weft/weft.yaml")
    before = box.state()
    good(box.dev("up"))
    sh(box, "iptables -P FORWARD DROP")
    sh(box, "for i in $(seq 200); do iptables -S DOCKER-USER | grep weft && exit; sleep 0.05; done")
    assert "weft admits pods" in sh(box, "iptables -S DOCKER-USER")
    sh(box, "test -S /run/weft-query/query.sock; test -s /var/lib/weft/given.json")
    sh(box, "kill -9 -$(cut -d' ' -f1 /run/weft/supervisor.pid)")
    sh(box, "mkdir /var/lib/weft/upgrade; touch /var/lib/weft/upgrade/record.json")
    sh(box, "touch /var/lib/weft/store.db.damaged-1 /run/weft/journal.db.unsafe-1")
    good(box.dev("down"))
    sh(box, "iptables -P FORWARD ACCEPT")
    assert box.changes_since(before) == []


def test_namespaces_that_others_made_stay(box: Machine) -> None:
    good(box.dev("up"))
    good(box.run(["ip", "netns", "add", "theirs"]))
    good(box.dev("down"))
    assert good(box.run(["ip", "netns", "list"])).split() == ["theirs"]


def test_link_that_forwarded_alone_before_forwards_alone_after_down(box: Machine) -> None:
    for family in ("ipv4", "ipv6"):
        good(box.run(["sh", "-c", f"echo 1 >/proc/sys/net/{family}/conf/eth0/forwarding"]))
    before = box.state()
    good(box.dev("up"))
    good(box.dev("down"))
    assert box.changes_since(before) == []


def test_sysctl_that_somebody_changed_since_up_is_left_alone(box: Machine) -> None:
    good(box.dev("up"))
    path = "/proc/sys/net/ipv4/ip_forward"
    assert good(box.run(["cat", path])).strip() == "1"
    good(box.run(["sh", "-c", f"echo 0 >{path}"]))
    good(box.dev("down"))
    assert good(box.run(["cat", path])).strip() == "0"


def test_machine_that_forwarded_before_goes_on_forwarding_after_down(box: Machine) -> None:
    path = "/proc/sys/net/ipv4/ip_forward"
    good(box.run(["sh", "-c", f"echo 1 >{path}"]))
    before = box.state()
    good(box.dev("up"))
    good(box.dev("down"))
    assert good(box.run(["cat", path])).strip() == "1"
    assert box.changes_since(before) == []


def test_command_of_somebody_else_is_not_replaced(box: Machine) -> None:
    good(box.run(["sh", "-c", "echo theirs >/usr/local/bin/weft"]))
    before = box.state()
    refused = box.dev("up")
    assert refused.returncode == 1
    assert "/usr/local/bin/weft exists" in refused.stderr
    assert box.changes_since(before) == []
    good(box.dev("down"))
    assert good(box.run(["cat", "/usr/local/bin/weft"])) == "theirs\n"
    assert box.changes_since(before) == []


@pytest.mark.matrix(id="up-killed", full=20, reduced=3)
def test_up_that_was_killed_is_taken_back_by_down(box: Machine, count: int) -> None:
    before = box.state()
    for turn in range(count):
        child = box.popen(["./dev", "up"])
        try:
            child.wait(timeout=0.2 + 2.5 * (turn + 1) / (count + 1))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        good(box.dev("down"))
        assert box.changes_since(before) == [], f"turn {turn}"


def test_nothing_of_the_checkout_is_changed_by_up(box: Machine) -> None:
    def names() -> set[Path]:
        return {p for p in CHECKOUT.iterdir() if p.name not in {".git", ".pytest_cache"}}

    before = names()
    good(box.dev("up"))
    assert names() == before
