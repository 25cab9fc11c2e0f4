"""The lab itself: nodes are apart from the machine and from each other, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from weft.lab import calls, ears, entering, frames, nodes, private, probes, snapshot, truth, wiring
from weft.lab.nodes import Node
from weft.lab.wiring import Wires
from weft.model.errors import NotReady, WeftError


def _pair(node: Node, one: Path, two: Path) -> None:
    """A cable between two pods, 10.9.0.1 and .2, fd09::1 and ::2."""
    calls.call(
        node,
        entering.ip_batch,
        "/run/netns/one",
        "link add eth0 type veth peer name other\nlink set lo up\n",
    )
    entering.output(one, ["ip", "link", "set", "other", "netns", str(_holder_of(two))])
    for network, link, number in ((one, "eth0", 1), (two, "other", 2)):
        entering.ip_batch(
            network,
            f"addr add 10.9.0.{number}/24 dev {link}\n"
            f"addr add fd09::{number}/64 dev {link} nodad\nlink set {link} up\n",
        )


def _holder_of(network: Path) -> int:
    """`ip link set netns` wants a pid: that of a process which has entered, until it is killed."""
    with entering.network(network):
        child = subprocess.Popen(["sleep", "30"])
    _holders.append(child)
    return child.pid


_holders: list[subprocess.Popen[bytes]] = []


@pytest.fixture
def cable(node: Node, bare_pod: Callable[[str], Path]) -> tuple[Path, Path]:
    one, two = bare_pod("one"), bare_pod("two")
    _pair(node, one, two)
    while _holders:
        child = _holders.pop()
        child.kill()
        child.wait()
    return one, two


def test_files_written_on_a_node_stay_on_the_node(node: Node) -> None:
    done = node.run(
        ["sh", "-c", "mkdir -p /etc/weft/x /opt/kept /var/lib/weft/y && touch /run/z /etc/made"]
    )

    assert done.returncode == 0, done.stderr
    for path in ("/etc/weft/x", "/opt/kept", "/var/lib/weft/y", "/run/z", "/etc/made"):
        assert node.path(path).exists()
        assert not Path(path).exists()


def test_a_node_begins_with_empty_state(node: Node) -> None:
    for path in private.EMPTY:
        assert list(node.path(path).iterdir()) == []


def test_a_node_has_a_name_a_boot_and_a_cgroup_of_its_own(node: Node) -> None:
    said = node.run(["sh", "-c", "hostname; cat /proc/sys/kernel/random/boot_id /proc/self/cgroup"])
    lines = said.stdout.decode().splitlines()

    assert lines[0] == node.name
    assert lines[1] != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if node.cgroup:
        assert lines[-1] == "0::/"


def test_sysfs_of_a_node_shows_the_nodes_links(node: Node) -> None:
    assert calls.call(node, lambda: sorted(os.listdir("/sys/class/net"))) == ["eth0", "lo"]


def test_nodes_reach_each_other_and_the_outside(new_node: Callable[[], Node], wires: Wires) -> None:
    one, two = new_node(), new_node()
    for address in wiring.node_addresses(1):
        assert probes.tcp(one.network, two.network, address).answered
    for address in (wiring.OUTSIDE_V4, wiring.OUTSIDE_V6):
        assert probes.udp(one.network, wires.outside.network, address, size=1500).answered


def test_stopping_a_node_ends_what_runs_inside_it(wires: Wires) -> None:
    made = nodes.start(f"{wires.switch.name}-ends")
    child = made.popen(["sleep", "60"], start_new_session=True)

    nodes.stop(made)

    assert child.wait(timeout=5) == -signal.SIGKILL
    assert not made.is_alive
    assert not made.cgroup or not Path(made.cgroup).exists()


def test_stopping_a_node_twice_is_no_error(wires: Wires) -> None:
    made = nodes.start(f"{wires.switch.name}-twice")
    nodes.stop(made)
    nodes.stop(made)


def test_a_stopped_node_refuses_commands(wires: Wires) -> None:
    made = nodes.start(f"{wires.switch.name}-gone")
    nodes.stop(made)
    with pytest.raises(WeftError):
        calls.call(made, os.getpid)


def test_a_tied_node_ends_with_its_maker_even_when_that_is_killed() -> None:
    code = (
        "import os, signal\nfrom weft.lab import nodes\n"
        f"made = nodes.start('test-tied-{os.getpid()}')\nprint(made.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    maker = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    pid = int(maker.stdout)
    deadline = time.monotonic() + 5
    while nodes.start_time(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)

    assert nodes.start_time(pid) is None
    for left in (private.unified_mount() or Path("/nowhere")).glob("weft-lab/test-tied-*"):
        left.rmdir()


def test_a_pid_that_is_used_again_is_not_taken_for_the_node(node: Node) -> None:
    impostor = Node(name="x", pid=os.getpid(), start=1)

    assert not impostor.is_alive
    with pytest.raises(NotReady):
        impostor.enter()


def test_a_function_called_on_a_node_brings_its_value_or_its_error_back(node: Node) -> None:
    assert calls.call(node, lambda a, b: {"sum": a + b}, 2, 3) == {"sum": 5}
    with pytest.raises(WeftError, match="ZeroDivisionError"):
        calls.call(node, lambda: 1 // 0)


def test_a_function_that_hangs_on_a_node_is_given_up(node: Node) -> None:
    with pytest.raises(NotReady):
        calls.call(node, signal.pause, timeout=0.2)


def test_leaving_a_namespace_by_an_error_comes_back(node: Node) -> None:
    before = os.readlink(entering.OWN)
    with pytest.raises(ZeroDivisionError), entering.network(node.network):
        assert os.readlink(entering.OWN) != before
        _ = 1 // 0

    assert os.readlink(entering.OWN) == before


@pytest.mark.parametrize(
    "command",
    [
        "ip link add x0 type veth peer name x1",
        "ip addr add 10.66.0.1/24 dev eth0",
        "ip route add 10.67.0.0/16 via 198.51.100.1 table 77",
        "ip rule add fwmark 7 table 77",
        "ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 down",
        "tc qdisc add dev eth0 clsact",
        "sysctl -qw net.ipv4.conf.eth0.proxy_arp=1",
        "sysctl -qw net.ipv4.ip_forward=1",
        "touch /var/lib/weft/thing",
        "touch /run/netns/thing",
    ],
)
def test_a_snapshot_shows_every_kind_of_change(node: Node, command: str) -> None:
    before = calls.call(node, _taken)
    assert node.run(["sh", "-c", command]).returncode == 0

    assert calls.call(node, _taken) != before


def test_a_snapshot_shows_a_packet_rule_and_its_place(node: Node) -> None:
    script = "table inet t {\n chain c {\n tcp dport 1 accept\n tcp dport 2 drop\n }\n}\n"
    other = "table inet t {\n chain c {\n tcp dport 2 drop\n tcp dport 1 accept\n }\n}\n"
    taken = []
    for text in (script, other):
        assert node.run(["nft", "-f", "-"], stdin=text.encode()).returncode == 0
        taken.append(calls.call(node, _taken))
        node.run(["nft", "delete", "table", "inet", "t"])

    assert taken[0] != taken[1]
    assert taken[0] != calls.call(node, _taken)


def _taken() -> dict[str, dict[str, int]]:
    return {name: dict(found) for name, found in snapshot.take().items()}


def test_a_snapshot_of_a_node_at_rest_does_not_change(node: Node, wires: Wires) -> None:
    before = calls.call(node, _taken)
    assert probes.tcp(node.network, wires.outside.network, wiring.OUTSIDE_V4).answered

    assert calls.call(node, _taken) == before


@pytest.mark.parametrize("address", ["10.9.0.2", "fd09::2"])
def test_probes_pass_a_cable_at_full_size(cable: tuple[Path, Path], address: str) -> None:
    one, two = cable
    assert probes.tcp(one, two, address).answered
    assert probes.udp(one, two, address, size=1500).answered
    assert probes.icmp(one, address, size=1500).answered


@pytest.mark.parametrize("address", ["10.9.0.2", "fd09::2"])
def test_probes_larger_than_the_path_fail(cable: tuple[Path, Path], address: str) -> None:
    one, two = cable
    assert not probes.udp(one, two, address, size=1501, patience=0.3).arrived
    assert not probes.icmp(one, address, size=1501, patience=0.3).answered


@pytest.mark.parametrize("address", ["10.9.0.2", "fd09::2"])
def test_a_dropped_packet_is_heard_at_the_interface_but_does_not_arrive(
    cable: tuple[Path, Path], address: str
) -> None:
    one, two = cable
    with entering.network(two):
        subprocess.run(
            ["nft", "add table inet t; add chain inet t c { type filter hook input priority 0;"
             " policy drop; }; add rule inet t c icmpv6 type 135-136 accept"],
            shell=False,
            check=True,
        )  # fmt: skip
    mark = ears.nonce()
    with ears.Ear(two, "other") as ear:
        assert not probes.udp(one, two, address, patience=0.4, mark=mark).arrived
        assert ear.heard([mark]) == {mark}


def test_hand_made_frames_have_checksums_that_the_kernel_accepts(cable: tuple[Path, Path]) -> None:
    one, two = cable
    source_mac = truth.links(one)["eth0"]["address"]
    goal_mac = truth.links(two)["other"]["address"]
    for source, goal in (("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")):
        mark = ears.nonce()
        packet = frames.packet(source, goal, (1000, 9), mark)
        frame = frames.ethernet(goal_mac, source_mac, frames.kind_of(source), packet)
        with ears.Ear(one) as ear, ears.Mouth(one) as mouth:
            mouth.say(frame)
            # nobody listens there: the kernel's "port unreachable" quotes what it accepted
            assert ear.hears(mark) is not None, goal


def test_what_a_killed_kit_left_is_buried_and_a_living_ones_is_not() -> None:
    top = private.unified_mount()
    if top is None:
        pytest.skip("cgroup version 2 is not mounted")
    group = f"weft-bury-{os.getpid()}"
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = (f"weft-x-{dead.pid}-node", f"weft-x-{os.getpid()}-node", "weft-x-y-node")
    for name in names:
        (top / group / name).mkdir(parents=True)
    try:
        nodes.bury("weft-x", group)
        assert sorted(path.name for path in (top / group).glob("weft-*")) == sorted(names[1:])
    finally:
        for path in (*(top / group).glob("weft-*"), top / group):
            path.rmdir()
