"""Token buckets and redirection against a real kernel: made, read back, mended, taken away."""

from __future__ import annotations

import subprocess
import time

import msgspec
import pytest
from namespace_fixture import new_namespace, on_a_node

from weft.agent.limiting import trial
from weft.drivers.engine import Engine
from weft.drivers.removal import delete_links
from weft.drivers.surroundings import Host
from weft.drivers.table import link_drivers
from weft.fabric.bandwidth import bucket
from weft.fabric.wiring import NodeFacts, wiring
from weft.kernel import links, rtnetlink
from weft.kernel.fingerprints import Reader
from weft.model.attachment import Attachment, AttachmentKey, limiter_of
from weft.model.bandwidth import Bandwidth
from weft.model.errors import KernelRefused
from weft.rows.bandwidth import Bucket, Ifb, Redirect
from weft.rows.base import Row
from weft.rows.links import Up

KEY = AttachmentKey("weft", "pod", "eth0")
LINK, BETWEEN = KEY.host_link, limiter_of(KEY.host_link)
RATES = (8_000, 10**6, 10**7, 10**9, 34_359_738_360, 10**11, 10**15)
"""Bits a second; the fifth is where the kernel's 32 bits of octets end."""


def attachment(**limits: int) -> Attachment:
    return Attachment(
        key=KEY,
        state="ready",
        host_link=LINK,
        mac=KEY.pod_mac,
        mtu=1500,
        addresses=(),
        bandwidth=Bandwidth(**limits),
    )


def rows(**limits: int) -> tuple[Row, ...]:
    return wiring(attachment(**limits), NodeFacts(ipv6_kernel=True))


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def engine() -> Engine:
    return Engine(Host(), link_drivers())


def both(rate: int = 10**7) -> tuple[Row, ...]:
    return rows(ingress_rate=rate, egress_rate=rate)


@on_a_node
def test_limits_of_both_ways_stand_and_nothing_differs() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", both(), pod)
    assert subject.differences("a", pod) == []
    assert subject.links("a") == [LINK, BETWEEN]
    shown = run("tc", "qdisc", "show")
    for link in (LINK, BETWEEN):
        assert f"dev {link} root" in shown and "rate 10093Kbit" in shown
    assert f"Egress Redirect to device {BETWEEN}" in run(
        "tc", "filter", "show", "dev", LINK, "ingress"
    )
    assert "inet6" not in run("ip", "addr", "show", BETWEEN)


@on_a_node
def test_every_rate_reads_back_as_it_was_written() -> None:
    subject, pod = engine(), new_namespace()
    for rate in RATES:
        for burst in (0, 2**32 - 1, min(rate, 2**30)):
            made = rows(ingress_rate=rate, ingress_burst=burst)
            subject.apply("a", made, pod)
            assert subject.differences("a", pod) == [], (rate, burst)


@on_a_node
def test_limits_stand_before_the_host_end_is_up() -> None:
    subject = engine()
    order = []
    for row in both():
        driver = subject.driver_table[type(row)]
        order.append((driver.position(row), row))
    order.sort(key=lambda each: each[0])
    names = [type(row).__name__ for _, row in order]
    up = next(at for at, (_, row) in enumerate(order) if row.key == ("Up", 0, LINK))
    assert up > max(at for at, name in enumerate(names) if name in ("Bucket", "Redirect", "Ifb"))
    assert isinstance(order[up - 1][1], Up) and order[up - 1][1].link == BETWEEN


@on_a_node
def test_withdrawing_and_deleting_leaves_nothing() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", both(), pod)
    doomed = subject.withdraw("a")
    assert delete_links(doomed) == dict.fromkeys(doomed, 0)
    assert run("ip", "-o", "link", "show").count("\n") == 1
    assert "noqueue" not in run("tc", "qdisc", "show").replace("dev lo", "")


DAMAGES = {
    "the bucket towards the container is gone": f"tc qdisc del dev {LINK} root",
    "another rate": f"tc qdisc change dev {LINK} root tbf rate 1gbit burst 25000 limit 100000",
    "another burst": f"tc qdisc change dev {LINK} root tbf rate 10093kbit burst 90000 limit 63083",
    "a peak rate": f"tc qdisc change dev {LINK} root tbf rate 10093kbit burst 25000 limit 63083 "
    "peakrate 20mbit mtu 1514",
    "another kind of queue": f"tc qdisc replace dev {LINK} root handle 1: htb",
    "the bucket from the container is gone": f"tc qdisc del dev {BETWEEN} root",
    "the filter is gone": f"tc filter del dev {LINK} ingress",
    "the hooks are gone": f"tc qdisc del dev {LINK} clsact",
    "other hooks": f"tc qdisc del dev {LINK} clsact; tc qdisc add dev {LINK} ingress",
    "a filter before it": f"tc filter del dev {LINK} ingress; tc filter add dev {LINK} "
    "ingress protocol all prio 1 u32 match ip dst 10.0.0.0/8 action mirred egress redirect dev lo; "
    f"tc filter add dev {LINK} ingress protocol all prio 1 u32 match u32 0 0 action mirred egress "
    f"redirect dev {BETWEEN}",
    "a mirror": f"tc filter del dev {LINK} ingress; tc filter add dev {LINK} ingress protocol all "
    f"prio 1 u32 match u32 0 0 action mirred egress mirror dev {BETWEEN}",
    "the ifb is down": f"ip link set {BETWEEN} down",
    "the ifb is gone": f"ip link del {BETWEEN}",
    "the ifb is renamed": f"ip link set {BETWEEN} name other",
    "the ifb has another alias": f"ip link set {BETWEEN} alias other",
    "the ifb is another one": f"ip link del {BETWEEN}; ip link add {BETWEEN} type ifb; "
    f"ip link set {BETWEEN} alias weft:1",
}


@pytest.mark.parametrize("what", list(DAMAGES))
@on_a_node
def test_damage_is_named_and_mended(what: str) -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", both(), pod)
    run("sh", "-ec", DAMAGES[what])
    found = subject.differences("a", pod)
    assert found and all(each.words for each in found)
    mended = subject.repair("a")
    assert mended and all(each.mended for each in mended), mended
    assert subject.differences("a", pod) == []
    with rtnetlink.open_socket() as via:
        standing = rtnetlink.find_link(via, BETWEEN)
    assert standing is not None and standing.ifindex == subject.number(BETWEEN)
    run("tc", "qdisc", "show")


@on_a_node
def test_an_ifb_of_ours_that_was_left_is_taken_over_and_another_is_not() -> None:
    subject, pod = engine(), new_namespace()
    run("ip", "link", "add", BETWEEN, "type", "ifb")
    with pytest.raises(Exception, match="that weft did not make"):
        subject.apply("a", both(), pod)
    delete_links(subject.withdraw("a"))
    assert BETWEEN in run("ip", "link", "show"), "somebody else's link was deleted"
    run("ip", "link", "set", BETWEEN, "alias", f"weft:limits {LINK}")
    subject.apply("a", both(), pod)
    assert subject.differences("a", pod) == []


@on_a_node
def test_a_limit_can_change_and_end_while_the_link_is_up() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", both(), pod)
    subject.apply("a", both(2 * 10**7), pod)
    assert subject.differences("a", pod) == []
    subject.apply("a", rows(), pod)
    assert "tbf" not in run("tc", "qdisc", "show") and BETWEEN not in run("ip", "link")


@on_a_node
def test_the_trial_finds_this_kernel_able_and_leaves_nothing() -> None:
    import threading

    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(trial()))
    thread.start()
    thread.join()
    assert said == [""]
    assert run("ip", "-o", "link", "show").count("\n") == 1


@on_a_node
def test_the_kernel_words_are_in_the_refusal() -> None:
    subject, pod = engine(), new_namespace()
    broken = msgspec.structs.replace(bucket(LINK, 10**6, 0, 1500), burst=0)
    with pytest.raises(KernelRefused):
        subject.apply("a", (*rows(), broken), pod)


def test_rows_of_an_attachment_without_limits_are_the_same_as_ever() -> None:
    assert not [row for row in rows() if isinstance(row, Bucket | Redirect | Ifb)]
    assert [type(row) for row in rows(ingress_rate=10**6) if isinstance(row, Bucket | Ifb)] == [
        Bucket
    ]
    assert links.create_ifb("wb", bytes(6), 1000, 1)


SILENT = {
    "the bucket": f"tc qdisc change dev {LINK} root tbf rate 1gbit burst 25000 limit 100000",
    "the filter": f"tc filter del dev {LINK} ingress",
    "the ifb": f"ip link set {BETWEEN} mtu 1200",
    "the ifb's bucket": f"tc qdisc del dev {BETWEEN} root",
}


@on_a_node
def test_a_look_at_everything_sees_each_damage_and_nothing_else() -> None:
    subject, pod = engine(), new_namespace()
    subject.apply("a", both(), pod)
    reader = Reader()
    numbers = {subject.number(LINK), subject.number(BETWEEN)}

    deadline = time.monotonic() + 5.0
    while "state UP" not in run("ip", "link", "show", LINK):  # told late, once a second at most
        assert time.monotonic() < deadline
        time.sleep(0.02)

    def prints() -> dict[int | None, int | None]:
        found = reader.take()
        return {number: found.get(number or 0) for number in numbers}

    right = prints()
    for what, damage in SILENT.items():
        run("sh", "-ec", damage)
        assert prints() != right, what
        subject.repair("a")
        assert prints() == right, what
    reader.close()
