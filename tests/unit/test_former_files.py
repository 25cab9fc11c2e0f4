"""What libcni and host-local wrote is read as they wrote it; nothing of it is believed blindly."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from weft.cni import former
from weft.cni.former import Left, Places
from weft.ipam.beside import inside, without
from weft.ipam.former import cover
from weft.model.addresses import parse_prefix
from weft.model.attachment import AttachmentKey
from weft.model.errors import Invalid
from weft.model.ip_pool import IPPool, IPPoolSpec
from weft.model.metadata import Metadata
from weft.wire.cni.former import (
    Reservation,
    read_cache,
    read_reservation,
    release_request,
    requests,
)

ID = "ab" * 32
CHAIN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "old",
    "plugins": [
        {
            "type": "bridge",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/16"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        {"type": "firewall"},
    ],
}
RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01"},
        {"name": "veth1234", "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/x"},
    ],
    "ips": [
        {"interface": 2, "address": "10.22.0.5/16", "gateway": "10.22.0.1"},
        {"interface": 2, "address": "fe80::5/64"},
        {"interface": 2, "address": "fd22::5/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {},
}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


def cache(chain: Any = CHAIN, **more: Any) -> bytes:
    """A file as libcni 0.7 and later write it."""
    entry = {
        "kind": "cniCacheV1",
        "containerId": ID,
        "config": base64.b64encode(json.dumps(chain).encode()).decode(),
        "ifName": "eth0",
        "networkName": "old",
        "netns": "/nowhere/netns",
        "cniArgs": [["K8S_POD_NAMESPACE", "blue"], ["K8S_POD_NAME", "web"]],
        "capabilityArgs": {"portMappings": PORTS, "aliases": {"old": ["a"]}},
        "result": RESULT,
    }
    return json.dumps(entry | more).encode()


class Disk:
    """/var/lib/cni of a node, below a directory of the test's."""

    def __init__(self, top: Path) -> None:
        self.results, self.networks = top / "results", top / "networks"
        self.conf = top / "net.d"
        for each in (self.results, self.networks, self.conf):
            each.mkdir(mode=0o755)

    def put(self, path: Path, content: bytes) -> Path:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def cached(self, name: str, content: bytes) -> Path:
        return self.put(self.results / name, content)

    def reserved(self, address: str, content: bytes, network: str = "old") -> Path:
        return self.put(self.networks / network / address, content)

    def read(self, *only: str) -> Left:
        return former.read(
            Places(
                results=str(self.results),
                networks=(str(self.networks),),
                configurations=(str(self.conf),),
                only=only,
            )
        )


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_cache_says_everything_that_is_needed() -> None:
    found = read_cache(cache())
    assert (found.network, found.container, found.ifname) == ("old", ID, "eth0")
    assert found.addresses == ("10.22.0.5", "fd22::5")
    assert (found.pod.namespace, found.pod.name, found.version) == ("blue", "web", "1.0.0")
    assert [str(each) for each in found.mappings] == [":8080->80/tcp"]


def test_the_namespace_is_the_results_where_libcni_wrote_none() -> None:
    assert read_cache(cache()).place == "/nowhere/netns"
    assert read_cache(cache(netns="")).place == "/run/netns/x"


def test_plugins_are_asked_as_libcni_would() -> None:
    """SPEC section 3: in reverse order, with the capabilities that each declares and the result."""
    asked = requests(read_cache(cache()))
    assert [kind for kind, _ in asked] == ["firewall", "portmap", "bridge"]
    by_kind = dict(asked)
    assert by_kind["portmap"]["runtimeConfig"] == {"portMappings": PORTS}
    assert by_kind["portmap"]["snat"] is True
    for conf in by_kind.values():
        assert (conf["name"], conf["cniVersion"], conf["prevResult"]) == ("old", "1.0.0", RESULT)
        assert "capabilities" not in conf
    assert "runtimeConfig" not in by_kind["bridge"]


def test_before_0_4_0_a_del_is_told_no_result() -> None:
    old = {**CHAIN, "cniVersion": "0.3.1"}
    result = {**RESULT, "cniVersion": "0.3.1"}
    result["ips"] = [{"version": "4", **RESULT["ips"][0]}]
    for _, conf in requests(read_cache(cache(old, result=result))):
        assert "prevResult" not in conf


def test_a_single_configuration_is_a_list_of_one() -> None:
    alone = {"cniVersion": "1.0.0", "name": "old", **CHAIN["plugins"][0]}
    (asked,) = requests(read_cache(cache(alone)))
    assert asked[0] == "bridge"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b'{"kind":"cniCacheV9"}',
        cache(containerId="../x"),
        cache(networkName=""),
        cache(ifName="a/b"),
        cache(config="%%%"),
        cache(config="é"),
        cache(result={**RESULT, "ips": [{"address": "10.22.0.5"}]}),
        cache()[:-40],
    ],
)
def test_what_is_no_cache_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid):
        read_cache(content)


def test_a_path_that_is_none_and_a_name_that_is_no_text_cost_nobody_else(disk: Disk) -> None:
    odd = {**RESULT, "interfaces": [{"name": "eth0", "sandbox": "/\0"}], "ips": []}
    disk.cached("old-odd-eth0", cache(containerId="odd", netns="/run/\0", result=odd))
    disk.cached("old-good-eth0", cache(containerId="good"))
    disk.cached(os.fsdecode(b"old-\xff-eth0"), cache(containerId="bad"))
    disk.reserved("10.22.0.9", b"c9\r\neth0", network=os.fsdecode(b"\xfe"))
    found = disk.read()
    assert {each.key.container: each.dead for each in found.containers} == {
        "good": True,
        "odd": True,
    }
    assert len(found.damaged) == 2
    msgspec.json.encode((found.damaged, [each.cache for each in found.containers]))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("10.22.0.5", b"c1\r\neth0", ("10.22.0.5", "c1", "eth0")),
        ("10.22.0.5", b"c1", ("10.22.0.5", "c1", "")),
        ("fd22::5", b"c1\r\neth0", ("fd22::5", "c1", "eth0")),
        ("fd22__5", b"c1\r\neth0", ("fd22::5", "c1", "eth0")),
    ],
)
def test_reservations_of_all_versions_are_read(
    name: str, content: bytes, found: tuple[str, str, str]
) -> None:
    address, container, ifname = found
    assert read_reservation(name, content) == Reservation(
        address=ipaddress.ip_address(address), container=container, ifname=ifname
    )


@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0", "last_reserved_ip.1"])
def test_marks_of_host_local_are_no_reservations(name: str) -> None:
    assert read_reservation(name, b"10.22.0.5") is None


@pytest.mark.parametrize("content", [b"", b"\r\n", b"a b c", b"../x\r\neth0", b"c1\r\na/b"])
def test_a_reservation_for_nobody_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid):
        read_reservation("10.22.0.5", content)


def test_cache_and_reservations_are_one_container(disk: Disk) -> None:
    path = disk.cached(f"old-{ID}-eth0", cache())
    files = [disk.reserved(a, f"{ID}\r\neth0".encode()) for a in ("10.22.0.5", "fd22::5")]
    disk.reserved("lock", b"")
    disk.reserved("last_reserved_ip.0", b"10.22.0.5")
    left = disk.read()
    (found,) = left.containers
    assert found.key == AttachmentKey("old", ID, "eth0")
    assert (found.cache, sorted(found.reservations)) == (str(path), sorted(map(str, files)))
    assert (found.addresses, found.link) == (("10.22.0.5", "fd22::5"), "veth1234")
    assert (found.dead, found.routed, left.damaged) == (True, (4,), ())
    assert [str(each.prefix) for each in left.ranges] == ["10.22.0.0/16"]


def test_a_bare_result_is_its_whose_name_or_address_tells(disk: Disk) -> None:
    disk.cached(f"old-{ID}-eth0", json.dumps(RESULT).encode())
    other = {**RESULT, "ips": [{"address": "10.22.0.6/16"}]}
    disk.cached("old-short-eth0", json.dumps(other).encode())
    disk.reserved("10.22.0.6", b"short\r\neth0")
    odd = disk.cached("a-b-c-d", json.dumps({**RESULT, "ips": []}).encode())
    left = disk.read()
    assert {each.key.container: each.addresses for each in left.containers} == {
        ID: ("10.22.0.5", "fd22::5"),
        "short": ("10.22.0.6",),
    }
    assert [each.path for each in left.damaged] == [str(odd)]


def test_an_old_reservation_without_interface_joins_its_cache(disk: Disk) -> None:
    disk.cached(f"old-{ID}-eth0", cache())
    disk.reserved("10.22.0.5", ID.encode())
    disk.reserved("10.22.0.9", b"alone")
    keys = {each.key for each in disk.read().containers}
    assert keys == {AttachmentKey("old", ID, "eth0"), AttachmentKey("old", "alone", "")}


def test_what_weft_attached_and_loopbacks_are_not_the_others(disk: Disk) -> None:
    ours = {"cniVersion": "1.0.0", "name": "old", "plugins": [{"type": "weft"}]}
    disk.cached(f"old-{ID}-eth0", cache(ours))
    disk.reserved("10.22.0.5", f"{ID}\r\neth0".encode())
    disk.reserved("10.22.0.6", ID.encode())  # of an older host-local
    lo = {"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}
    answer = {"cniVersion": "0.3.1"}
    more = {"ifName": "lo", "networkName": "cni-loopback", "result": answer}
    disk.cached(f"cni-loopback-{ID}-lo", cache(lo, **more))
    left = disk.read()
    assert (left.containers, left.ours, left.damaged) == ((), 1, ())


def test_containers_of_an_earlier_boot_are_apart(disk: Disk) -> None:
    path = disk.cached(f"old-{ID}-eth0", cache())
    os.utime(path, (1, 1))
    left = disk.read()
    assert (left.containers, [each.key.container for each in left.old]) == ((), [ID])
    disk.cached(f"old-{ID}-eth0", cache(netns="/proc/self/ns/net"))  # lives, whatever the clock
    os.utime(path, (1, 1))
    assert not disk.read().old


def test_of_two_with_one_address_the_one_of_the_reservation_has_it(disk: Disk) -> None:
    one = {**RESULT, "ips": RESULT["ips"][:1]}
    disk.cached(f"old-{ID}-eth0", cache(netns="/proc/self/ns/net", result=one))
    disk.cached("old-c2-eth0", cache(containerId="c2", result=one))
    problems = {each.key.container: each.problem for each in disk.read().containers}
    assert problems == {ID: "", "c2": f"10.22.0.5 is on record for old/{ID}/eth0, too"}
    disk.reserved("10.22.0.5", b"c2\r\neth0")
    problems = {each.key.container: each.problem for each in disk.read().containers}
    assert problems == {ID: "10.22.0.5 is on record for old/c2/eth0, too", "c2": ""}


def test_damage_costs_only_its_own_container(disk: Disk) -> None:
    disk.cached(f"old-{ID}-eth0", cache())
    bad = [disk.cached("old-x-eth0", b""), disk.reserved("10.22.0.7", b"")]
    open_to_all = disk.reserved("10.22.0.8", b"c8\r\neth0")
    open_to_all.chmod(0o666)
    link = disk.networks / "old" / "10.22.0.9"
    link.symlink_to("/etc/passwd")
    left = disk.read()
    assert [each.key.container for each in left.containers] == [ID]
    assert {each.path for each in left.damaged} == set(map(str, [*bad, open_to_all, link]))


def test_ports_that_cannot_be_read_are_a_problem_of_their_container(disk: Disk) -> None:
    wrong = {"portMappings": [{"hostPort": 99999, "containerPort": 1}]}
    disk.cached(f"old-{ID}-eth0", cache(capabilityArgs=wrong))
    (found,) = disk.read().containers
    assert "99999" in found.problem


def test_data_directories_of_configurations_are_read_also_of_those_set_aside(
    disk: Disk, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    conf = json.loads(json.dumps(CHAIN))
    conf["plugins"][0]["ipam"]["dataDir"] = str(elsewhere)
    disk.put(disk.conf / "10-old.conflist.before-weft", json.dumps(conf).encode())
    disk.put(disk.conf / "11-broken.conflist", b"{")
    elsewhere.mkdir()
    disk.put(elsewhere / "old" / "10.22.0.5", b"c1\r\neth0")
    left = disk.read()
    assert [each.key.container for each in left.containers] == ["c1"]
    assert [str(each.prefix) for each in left.ranges] == ["10.22.0.0/16"]


def test_only_the_networks_asked_for(disk: Disk) -> None:
    disk.reserved("10.22.0.5", b"c1\r\neth0")
    disk.reserved("10.23.0.5", b"c2\r\neth0", network="other")
    assert [each.key.container for each in disk.read("other").containers] == ["c2"]


def test_host_local_alone_gets_a_configuration_that_it_takes() -> None:
    conf = release_request("old", "fd22::5", "/var/lib/cni/networks")
    assert conf["ipam"]["ranges"] == [[{"subnet": "fd22::/112"}]]  # type: ignore[index]
    assert conf["name"] == "old"


def pool(name: str, cidr: str, *, disabled: bool = False) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, disabled=disabled))


@pytest.mark.parametrize(
    ("cidr", "pools", "state", "name"),
    [
        ("10.22.0.0/16", [("a", "10.0.0.0/8")], "covered", "a"),
        ("10.22.0.0/16", [("a", "10.22.0.0/16")], "covered", "a"),
        ("10.22.0.0/16", [("a", "10.22.1.0/24")], "open", ""),
        ("10.22.0.0/16", [("a", "10.244.0.0/16")], "made", "former-old-net-ipv4"),
        ("fd22::/64", [("a", "10.244.0.0/16")], "open", ""),
        ("169.254.0.0/24", [("a", "10.244.0.0/16")], "open", ""),
    ],
)
def test_a_range_is_covered_or_gets_a_disabled_pool(
    cidr: str, pools: list[tuple[str, str]], state: str, name: str
) -> None:
    (found,) = cover([("Old_Net", parse_prefix(cidr, "cidr"))], [pool(*each) for each in pools])
    assert (found.state, found.pool) == (state, name)
    assert found.make is None or found.make.spec.disabled


def test_an_enabled_pool_around_a_range_is_told() -> None:
    wanted = [("old", parse_prefix("10.22.0.0/16", "cidr"))]
    assert "disable it" in cover(wanted, [pool("a", "10.0.0.0/8")])[0].why
    assert cover(wanted, [pool("a", "10.0.0.0/8", disabled=True)])[0].why == ""


def test_names_of_made_pools_are_free_and_ranges_are_made_once() -> None:
    ranges = [("o/d", parse_prefix(cidr, "cidr")) for cidr in ("10.1.0.0/16", "10.2.0.0/16")]
    again = [("x", parse_prefix("10.1.0.0/16", "cidr"))]
    found = cover([*ranges, *again], [pool("former-o-d-ipv4", "10.9.0.0/16")])
    assert [(each.state, each.pool) for each in found] == [
        ("made", "former-o-d-ipv4-2"),
        ("made", "former-o-d-ipv4-3"),
        ("covered", "former-o-d-ipv4-2"),
    ]


@pytest.mark.parametrize(
    ("block", "addresses"),
    [
        ("10.22.0.0/26", ["10.22.0.0", "10.22.0.5", "10.22.0.63", "10.22.0.64"]),
        ("0.0.0.0/30", ["0.0.0.0", "0.0.0.3"]),
        ("fd22::/122", ["fd22::1", "10.22.0.5"]),
        ("10.22.0.5/32", ["10.22.0.5"]),
    ],
)
def test_a_block_without_addresses_is_everything_else_of_it(
    block: str, addresses: list[str]
) -> None:
    whole = ipaddress.ip_network(block)
    taken = {ipaddress.ip_address(each) for each in addresses}
    parts = without([whole], addresses)
    assert {each for part in parts for each in part} == set(whole) - taken
    assert sum(part.num_addresses for part in parts) == len(set(whole) - taken)
    assert inside(addresses[0], [whole])
