"""`weft doctor`: machines that are well, and machines that are not, as directories."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_run import fake, nobody, run
from fake_agent import Fake
from msgspec import structs

from weft.agent.findings import findings_of
from weft.agent.foreign import Survey
from weft.cli import checks_host, checks_runtime, doctor
from weft.cli.client import Client
from weft.cli.machine import Machine
from weft.cni.install import DEFAULT_CONFLIST, MARK
from weft.model.kernel_features import BANDWIDTH, BRIDGED, NEEDED
from weft.wire.api import Finding, IpamCheck, IpamProblem
from weft.wire.status import (
    Capability,
    Families,
    Family,
    ForeignFirewall,
    PoolUse,
    Status,
    WayOut,
    WaysOut,
    Why,
)

__all__ = ["fake", "nobody"]

WELL = Status(
    version="0.1.0",
    node="node-a",
    ready=True,
    families=Families(ipv4=Family(enabled=True), ipv6=Family(enabled=True)),
    ways_out=WaysOut(ipv4=WayOut(present=True), ipv6=WayOut(present=True)),
    pools=(PoolUse(name="default", cidr="10.244.0.0/16", size=65534, used=2, free=65532),),
    capabilities=(Capability(name="veth", present=True),),
)
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


class Host:
    """A machine in a directory, well in every respect until a test makes it ill."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.others = Survey()
        self.now = 1_800_000_000.0
        launcher = root / "installation" / "launcher"
        self.write("installation/launcher", MARK.decode() + "0.1.0")
        monkeypatch.setattr(checks_runtime, "LAUNCHER", launcher)
        self.write("opt/cni/bin/weft", MARK.decode() + "0.1.0", 0o755)
        self.write("etc/cni/net.d/10-weft.conflist", DEFAULT_CONFLIST.decode())
        symbols = "".join(
            f"0 T {symbol}\n" for symbol, _ in (NEEDED | BANDWIDTH | BRIDGED).values()
        )
        self.write("proc/kallsyms", symbols)
        self.write("proc/sys/kernel/osrelease", "6.18.5\n")
        self.write("proc/sys/net/ipv4/ip_forward", "1\n")
        self.write("proc/sys/net/ipv6/conf/all/forwarding", "1\n")
        self.write("proc/net/route", ROUTES + "eth0\t00000000\t010200C0\t3\t0\t0\t0\t00000000\n")
        self.write("sys/class/net/eth0", "")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def machine(self, status: Status | None = WELL) -> Machine:
        return Machine(self.root, status=status, look=lambda: self.others, now=lambda: self.now)

    def ill(self, status: Status | None = WELL) -> list[Finding]:
        machine = self.machine(status)
        found = [each for check in doctor.CHECKS for each in check(machine)]
        # the disk of the machine that runs the test is not this machine's
        return [each for each in found if each.level != "ok" and each.id != "room"]

    def only(self, status: Status | None = WELL) -> Finding:
        (finding,) = self.ill(status)
        return finding


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_kernel_that_cannot_limit_bandwidth_is_named_and_is_enough_all_the_same(
    host: Host,
) -> None:
    symbols = "".join(f"0 T {symbol}\n" for symbol, _ in NEEDED.values())
    host.write("proc/kallsyms", symbols + "0 T tbf_init\n")
    found = {each.id: each for each in checks_host.kernel_features(host.machine())}
    assert found["kernel"].level == "ok" and found["kernel-bandwidth"].level == "warn"
    assert "ifb (CONFIG_IFB)" in found["kernel-bandwidth"].text
    assert "tbf" not in found["kernel-bandwidth"].text


def test_a_kernel_that_cannot_guard_bridges_is_named_and_is_enough_all_the_same(host: Host) -> None:
    symbols = "".join(f"0 T {symbol}\n" for symbol, _ in (NEEDED | BANDWIDTH).values())
    host.write("proc/kallsyms", symbols + "0 T br_handle_frame\n")
    found = {each.id: each for each in checks_host.kernel_features(host.machine())}
    assert found["kernel"].level == "ok" and found["kernel-bridge"].level == "warn"
    assert "CONFIG_NF_TABLES_BRIDGE" in found["kernel-bridge"].text
    assert "CONFIG_BRIDGE" not in found["kernel-bridge"].text


def test_healthy_machine_has_nothing_wrong(host: Host) -> None:
    assert host.ill() == []
    assert [each for each in findings_of(WELL, IpamCheck()) if each.level != "ok"] == []


def test_kernel_older_than_any_that_weft_runs_on_is_bad(host: Host) -> None:
    host.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n")
    found = next(each for each in host.ill() if each.id == "kernel")
    assert (found.level, found.mend) == ("bad", "boot Linux 5.15 or newer")


def test_configuration_that_shadows_ours_is_named(host: Host) -> None:
    host.write("etc/cni/net.d/05-bridge.conf", '{"type": "bridge"}')
    found = host.only()
    assert (found.id, found.level) == ("conflist", "bad")
    assert "05-bridge.conf" in found.text
    assert found.mend == "weft install --take-over"


def test_launcher_is_missed_where_a_runtime_looks(host: Host) -> None:
    host.write("etc/crio/crio.conf", '[crio.network]\nplugin_dirs = ["/usr/libexec/cni"]')
    told = {each.id: each for each in host.ill()}
    assert "CRI-O looks for plugins in /usr/libexec/cni" in told["launcher"].text
    assert "names a plugin that is not in /usr/libexec/cni" in told["conflist"].text
    assert told["launcher"].mend == "weft install"


def test_settings_of_a_runtime_that_cannot_be_read_are_named(host: Host) -> None:
    host.write("etc/containerd/config.toml", "[")
    found = host.only()
    assert (found.id, found.level) == ("conflist", "warn")
    assert "/etc/containerd/config.toml is no TOML" in found.text


@pytest.mark.parametrize("name", ["05-notes.txt", "90-bridge.conf", "05-bridge.conf.bak"])
def test_files_that_runtimes_pass_over_are_no_finding(host: Host, name: str) -> None:
    host.write(f"etc/cni/net.d/{name}", '{"type": "bridge"}')
    assert host.ill() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plugins": 3}', "null", "[" * 100_000])
def test_configuration_that_is_none_is_named(host: Host, text: str) -> None:
    host.write("etc/cni/net.d/90-broken.conflist", text)
    found = host.only()
    assert (found.id, found.level) == ("conflist", "warn")
    assert "90-broken.conflist" in found.text


def test_absent_configuration_is_bad(host: Host) -> None:
    (host.root / "etc/cni/net.d/10-weft.conflist").unlink()
    assert (host.only().id, host.only().level) == ("conflist", "bad")


def test_launcher_absent_foreign_old_or_not_executable(host: Host) -> None:
    place = host.root / "opt/cni/bin/weft"
    place.chmod(0o644)
    assert "not executable" in host.only().text
    host.write("opt/cni/bin/weft", MARK.decode() + "0.0.9", 0o755)
    assert (host.only().level, "not the launcher of this release" in host.only().text) == (
        "warn",
        True,
    )
    host.write("opt/cni/bin/weft", "#!/bin/sh", 0o755)
    assert "not weft's launcher" in host.only().text
    place.unlink()
    assert (host.only().id, host.only().level) == ("launcher", "bad")


def test_kernel_that_lacks_something_is_told_what(host: Host) -> None:
    symbols = (host.root / "proc/kallsyms").read_text()
    host.write("proc/kallsyms", symbols.replace("nft_do_chain_arp", "nothing"))
    assert "nftables, arp family" in host.only().text
    host.write("lib/modules/6.18.5/modules.dep", "kernel/net/netfilter/nf_tables.ko.xz:\n")
    assert host.ill() == []


def test_kernel_of_which_nothing_can_be_read_is_unknown_not_bad(host: Host) -> None:
    (host.root / "proc/kallsyms").unlink()
    assert host.only().level == "warn"
    assert "cannot tell" in host.only().text


def test_forwarding_that_is_off_is_bad_while_an_agent_runs(host: Host) -> None:
    host.write("proc/sys/net/ipv4/ip_forward", "0\n")
    assert (host.only().level, host.only().mend) == ("bad", "sysctl -w net.ipv4.ip_forward=1")
    assert host.only(None).level == "warn"


def test_family_that_pods_do_not_get_need_not_be_forwarded(host: Host) -> None:
    host.write("proc/sys/net/ipv6/conf/all/forwarding", "0\n")
    assert host.only().id == "forwarding"
    assert host.ill(Status(version="1", node="n", ready=True)) == []


@pytest.mark.parametrize(
    ("link", "whose"),
    [("cni0", "bridge"), ("flannel.1", "flannel"), ("cali12ab", "Calico"), ("weave", "Weave")],
)
def test_links_of_another_network_are_named(host: Host, link: str, whose: str) -> None:
    host.write(f"sys/class/net/{link}", "")
    assert host.only().level == "warn"
    assert link in host.only().text
    assert whose in host.only().text


DROPPING = ForeignFirewall(
    chain="chain ip filter FORWARD",
    hook="forward",
    owners=("docker",),
    drops=("out",),
    breaks=True,
    message="chain ip filter FORWARD (Docker) drops connections of pods to the outside",
    mend="iptables -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT",
)


def test_chain_that_drops_is_named_by_the_agent_or_without_one(host: Host) -> None:
    host.others = Survey(entries=(DROPPING,))
    assert host.ill() == []  # the agent judges for its pools
    alone = next(each for each in host.ill(None) if each.id == "foreign-firewall")
    assert (alone.level, alone.text, alone.mend) == ("bad", DROPPING.message, DROPPING.mend)
    told = [
        each
        for each in findings_of(structs.replace(WELL, firewalls=(DROPPING,)), IpamCheck())
        if each.id == "foreign-firewall"
    ]
    assert told == [alone]


def test_chain_that_closes_only_what_may_be_closed_is_to_look_at(host: Host) -> None:
    entry = structs.replace(DROPPING, drops=("in",), breaks=False)
    host.others = Survey(entries=(entry,))
    assert [each.level for each in host.ill(None) if each.id == "foreign-firewall"] == ["warn"]


def test_chain_of_which_nobody_can_tell_is_shown_with_how_to_look(host: Host) -> None:
    entry = ForeignFirewall(
        chain="chain inet f fwd", hook="forward", unclear=("out",), message="cannot tell"
    )
    host.others = Survey(entries=(entry,))
    found = next(each for each in host.ill(None) if each.id == "foreign-firewall")
    assert (found.level, found.mend) == ("warn", "nft list chain inet f fwd")


def test_filters_that_cannot_be_seen_are_a_finding_of_their_own(host: Host) -> None:
    host.others = Survey(troubles=("legacy iptables are in use",))
    assert host.only().level == "warn"
    assert "cannot see all packet filters" in host.only().text


def test_chains_tables_and_directories_of_another_network_are_listed(host: Host) -> None:
    chains = (
        ("ip", "filter", "FLANNEL-FWD"),
        ("ip6", "nat", "FLANNEL-POSTRTG"),
        ("ip", "calico", "filter-FORWARD"),
        ("ip", "filter", "DOCKER-USER"),
    )
    host.others = Survey(chains=chains)
    host.write("var/lib/cni/networks/cbr0/10.0.0.2", "")
    found = {each.text.split(";")[0]: each.mend for each in host.ill()}
    assert found == {
        "left by flannel: chains FLANNEL-FWD, FLANNEL-POSTRTG": "iptables-save | grep -vE "
        "'FLANNEL-' | iptables-restore; ip6tables-save | grep -vE 'FLANNEL-' | ip6tables-restore",
        "left by Calico: table ip calico": "nft delete table ip calico",
        "left by the CNI plugins (bridge, portmap, host-local): /var/lib/cni/networks ('cbr0')": (
            "rm -r /var/lib/cni/networks"
        ),
    }


def test_network_that_runs_is_no_leftover_but_a_second_network(host: Host) -> None:
    host.write("sys/class/net/flannel.1", "")
    host.write("proc/77/comm", "flanneld\n")
    assert "flannel runs on this node (flanneld)" in host.only().text
    assert host.only().mend == "remove flannel from the cluster, or this node from it"


def test_what_imported_containers_live_by_is_not_to_be_removed(host: Host) -> None:
    host.write("sys/class/net/cni0/flags", "0x1003\n")
    host.write("proc/net/route", ROUTES + "cni0\t0000160A\t0\t1\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
    pool = PoolUse(
        name="former", cidr="10.22.0.0/16", size=65534, used=1, free=65533, disabled=True
    )
    imported = structs.replace(WELL, attachments={"imported": 1}, pools=(*WELL.pools, pool))
    assert host.ill(imported) == []
    assert host.only().mend == "ip link delete cni0"
    awake = structs.replace(imported, pools=(structs.replace(pool, disabled=False),))
    assert "overlaps routes of the host: 10.22.0.0/16 by cni0" in host.only(awake).text


def test_service_proxy_that_runs_is_no_finding_and_one_that_is_gone_is(host: Host) -> None:
    host.others = Survey(chains=(("ip", "nat", "KUBE-SERVICES"),))
    host.write("proc/77/comm", "kube-proxy\n")
    assert host.ill() == []
    (host.root / "proc/77/comm").unlink()
    assert host.only().text.startswith("left by kube-proxy: chains KUBE-SERVICES")


def test_tunnel_of_the_kernels_own_is_a_leftover_only_while_it_is_up(host: Host) -> None:
    host.write("sys/class/net/tunl0/flags", "0x80\n")
    assert host.ill() == []
    host.write("sys/class/net/tunl0/flags", "0x81\n")
    assert host.only().mend == "ip link set tunl0 down"


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("eth1\t0000F40A\t0\t1\t0\t0\t0\t0000FFFF\t0\t0\t0\n", "10.244.0.0/16 by eth1"),
        ("tun0\t0000000A\t0\t1\t0\t0\t0\t000000FF\t0\t0\t0\n", "10.0.0.0/8 by tun0"),
        ("wfabcdefghijklm\t0500F40A\t0\t1\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n", ""),
        ("eth1\t0000F50A\t0\t1\t0\t0\t0\t0000FFFF\t0\t0\t0\n", ""),
    ],
)
def test_pool_that_overlaps_a_route_of_the_host_is_bad(host: Host, line: str, hit: str) -> None:
    host.write("proc/net/route", ROUTES + line)
    found = host.ill()
    assert bool(found) == bool(hit)
    if found:
        assert hit in found[0].text


def test_pool_that_overlaps_an_ipv6_route_is_bad(host: Host) -> None:
    status = Status(
        version="1",
        node="n",
        ready=True,
        families=WELL.families,
        pools=(PoolUse(name="v6", cidr="fd00:1::/48"),),
    )
    zero = "0" * 32
    host.write(
        "proc/net/ipv6_route",
        f"fd000001{'0' * 24} 40 {zero} 00 {zero} 00000400 00000001 00000000 00000001     eth0\n"
        f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n",
    )
    assert "fd00:1::/64 by eth0" in host.only(status).text


def test_clock_of_another_decade_is_noticed(host: Host) -> None:
    host.now = 1_000_000.0
    assert (host.only().id, host.only().level) == ("clock", "warn")


@pytest.mark.parametrize(
    ("octets", "files", "level"),
    [
        (1 << 30, 10**6, "ok"),
        (32 << 20, 10**6, "warn"),
        (1 << 20, 10**6, "bad"),
        (1 << 30, 5, "bad"),
    ],
)
def test_little_room_is_noticed(host: Host, octets: int, files: int, level: str) -> None:
    machine = host.machine()
    machine.free = lambda path: (octets, files)  # type: ignore[method-assign]
    assert {each.level for each in checks_host.room(machine)} == {level}


def test_room_is_measured_at_the_nearest_directory_that_exists(host: Host) -> None:
    found = host.machine().free("/var/lib/weft/store.db")
    assert found is not None
    assert found[0] > 0


def test_socket_that_others_may_write_to_is_bad(host: Host) -> None:
    host.write("run/weft/agent.sock", "", 0o600)
    (host.root / "run/weft").chmod(0o700)
    machine = host.machine()
    machine.socket = "/run/weft/agent.sock"
    levels = [each.level for each in checks_runtime.socket_permissions(machine)]
    assert levels == (["ok"] if os.geteuid() == 0 else ["bad"])
    (host.root / "run/weft/agent.sock").chmod(0o666)
    (found,) = checks_runtime.socket_permissions(machine)
    assert found.level == "bad"
    assert "chmod 0600 /run/weft/agent.sock" in found.mend or "chmod" in found.mend


def test_check_that_meets_an_unknown_form_does_not_hide_the_others(host: Host) -> None:
    host.write("proc/net/route", ROUTES + "eth0 nonsense\n")
    found = doctor.diagnose(Client("/nowhere/agent.sock"), host.machine())
    assert next(each.text for each in found if each.id == "overlaps").startswith("could not be")
    assert [each.level for each in found if each.id == "clock"] == ["ok"]


def test_absent_agent_is_a_finding_with_its_remedy(host: Host) -> None:
    found = doctor.diagnose(Client("/nowhere/agent.sock"), host.machine(None))
    assert (found[0].id, found[0].level) == ("agent", "bad")
    assert "weft" in found[0].mend
    assert "; start it" not in found[0].text


def test_command_prints_findings_and_fails_when_one_is_bad(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Finding(id="a", level="ok", text="all well")
    odd = Finding(id="b", level="warn", text="odd", mend="look")
    bad = Finding(id="c", level="bad", text="broken", mend="mend it")
    for found, status in (([good, odd], 0), ([good, odd, bad], 1)):
        monkeypatch.setattr(doctor, "diagnose", lambda client, found=found: found)
        assert run("doctor").status == status
    assert run("doctor").out == (
        "ok    all well\nwarn  odd\n      -> look\nbad   broken\n      -> mend it\n"
        "1 bad, 1 to look at\n"
    )
    assert "all well" not in run("doctor", "-q").out
    assert len(json.loads(run("doctor", "-o", "json").out)["items"]) == 3


@pytest.mark.usefixtures("fake")
def test_doctor_changes_nothing_and_ends_with_a_sum() -> None:
    ran = run("doctor")
    assert ran.out.splitlines()[0].startswith("ok    the agent answers on ")
    assert ran.out.splitlines()[-1].endswith(("to look at", "Nothing is wrong."))
    assert ran.err == ""


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            {"ready": False, "reasons": (Why(reason="exhausted", message="none left"),)},
            ("agent-ready", "bad", "none left", "weft explain exhausted"),
        ),
        ({"ready": False}, ("agent-ready", "bad", "the agent is not ready", "weft status")),
        ({"warnings": (Why(reason="invented", message="hm"),)}, ("warning", "warn", "hm", "")),
        (
            {
                "families": Families(
                    ipv4=Family(enabled=True), ipv6=Family(enabled=False, why="off")
                )
            },
            ("family", "warn", "pods get no IPv6: off", ""),
        ),
        (
            {
                "ways_out": WaysOut(
                    ipv4=WayOut(present=True), ipv6=WayOut(present=False, why="none")
                )
            },
            ("way-out", "warn", "no IPv6 way out: none", ""),
        ),
        (
            {"capabilities": (Capability(name="veth", present=False, why="old"),)},
            ("kernel", "warn", "not to be had on this node: veth: old", ""),
        ),
        (
            {"pools": ()},
            ("pools", "bad", "there is no pool to give addresses from", "weft apply -f POOL.yaml"),
        ),
    ],
)
def test_status_that_is_not_well_becomes_a_finding(change: dict[str, Any], finding: Any) -> None:
    status = Status(**{name: getattr(WELL, name) for name in WELL.__struct_fields__} | change)
    (found,) = (each for each in findings_of(status, IpamCheck()) if each.level != "ok")
    assert (found.id, found.level, found.text, found.mend) == finding


def test_pool_that_is_nearly_full_and_an_audit_with_problems_are_findings() -> None:
    full = PoolUse(name="default", cidr="10.0.0.0/24", size=254, used=220, cooling=20)
    status = Status(version="1", node="n", ready=True, pools=(full,))
    problem = IpamProblem(what="leaked", address="10.0.0.5", text="leaked", mend="release it")
    found = findings_of(status, IpamCheck(problems=(problem,)))
    texts = [each.text for each in found if each.level == "warn" and each.id != "family"]
    assert texts == ["pool default: 220 of 254 addresses in use, 20 cooling", "leaked"]
