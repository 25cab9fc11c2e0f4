"""Deleting links in the background: fast to vanish, grouped, and never anybody else's."""

from __future__ import annotations

import threading
import time

import pytest
from attachment_rows import attachment, link_name
from namespace_fixture import new_namespace, on_a_node

from weft.drivers import removal
from weft.drivers.engine import Engine
from weft.drivers.links import DOOMED_GROUP
from weft.drivers.removal import FOREIGN, delete_links, gone
from weft.drivers.surroundings import Host
from weft.drivers.table import link_drivers
from weft.kernel import links, rtnetlink
from weft.kernel.namespaces import entered
from weft.kernel.netlink import Socket
from weft.model.attachment import LIVE_GROUP

MACS = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"


def make(via: Socket, name: str, *, group: int = LIVE_GROUP, alias: str = "weft:1:x") -> None:
    ends = links.End(name, MACS[0], 1500), links.End("eth0", MACS[1], 1500)
    via.transact([links.create_veth(ends[0], group, ends[1], new_namespace())])
    if alias:
        via.transact([links.set_alias(name, alias)])


def names(via: Socket) -> set[str]:
    return {links.decode(body).name for _, body in via.dump(links.get_all(kind="veth"))}


@on_a_node
def test_names_vanish_in_both_namespaces_and_can_be_used_again_at_once() -> None:
    engine, pod = Engine(Host(), link_drivers()), new_namespace()
    with entered(pod):
        inside = rtnetlink.Lookup()
    outside = rtnetlink.Lookup()
    for turn in range(5):
        engine.apply("a", attachment(1), pod)
        assert outside.exists(link_name(1)) and inside.exists("eth0")
        assert not gone(link_name(1))
        doomed = engine.withdraw("a")
        worker = threading.Thread(target=delete_links, args=(doomed,))
        worker.start()
        patience = time.monotonic() + 10
        while outside.exists(link_name(1)) or inside.exists("eth0"):
            assert time.monotonic() < patience
        assert gone(link_name(1))
        engine.apply("b", attachment(1), pod)  # while the acknowledgement may still be awaited
        assert engine.differences("b", pod) == []
        worker.join()
        assert engine.differences("b", pod) == [], f"turn {turn}: the new pair was deleted"
        assert delete_links(engine.withdraw("b")) == {link_name(1): 0}


@on_a_node
def test_many_links_go_together_and_others_stay() -> None:
    with rtnetlink.open_socket() as via:
        for number in range(12):
            make(via, link_name(number))
        make(via, "wfforeign", group=0, alias="not ours")
        make(via, "eve0", group=0, alias="weft:1:x")
        doomed = [link_name(number) for number in range(10)]
        assert delete_links([*doomed, "wfabsent"]) == {**dict.fromkeys(doomed, 0), "wfabsent": 0}
        assert names(via) == {link_name(10), link_name(11), "wfforeign", "eve0"}


@on_a_node
def test_what_is_not_ours_is_refused() -> None:
    with rtnetlink.open_socket() as via:
        make(via, "wfforeign", group=0, alias="")
        make(via, "eve0", group=LIVE_GROUP)
        assert delete_links(["wfforeign"]) == {"wfforeign": FOREIGN}
        assert delete_links(["eve0", "wfforeign", "lo"]) == {
            "eve0": FOREIGN, "wfforeign": FOREIGN, "lo": FOREIGN,
        }  # fmt: skip
        assert names(via) == {"wfforeign", "eve0"}


@on_a_node
def test_a_foreign_link_in_the_doomed_group_survives() -> None:
    with rtnetlink.open_socket() as via:
        make(via, "eve0", group=DOOMED_GROUP, alias="")
        for number in range(3):
            make(via, link_name(number))
        doomed = [link_name(number) for number in range(3)]
        assert delete_links(doomed) == dict.fromkeys(doomed, 0)
        assert names(via) == {"eve0"}


@on_a_node
def test_a_link_that_never_got_its_alias_is_deleted_alone() -> None:
    with rtnetlink.open_socket() as via:
        make(via, link_name(1), alias="")
        make(via, link_name(2))
        make(via, link_name(3))
        doomed = [link_name(number) for number in (1, 2, 3)]
        assert delete_links(doomed) == dict.fromkeys(doomed, 0)
        assert names(via) == set()


@on_a_node
def test_links_that_vanish_meanwhile_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with rtnetlink.open_socket() as via:
        for count in (1, 3):
            doomed = [link_name(number) for number in range(count)]
            for name in doomed:
                make(via, name)
            plain = removal._find

            def find(
                own: Socket, asked: object, via: Socket = via, plain: object = plain
            ) -> object:
                found = plain(own, asked)  # type: ignore[operator]
                via.transact([links.delete_by_name(name) for name in found])
                return found

            monkeypatch.setattr(removal, "_find", find)
            assert delete_links(doomed) == dict.fromkeys(doomed, 0)
            monkeypatch.setattr(removal, "_find", plain)


@on_a_node
def test_workers_that_delete_at_the_same_time_do_not_disturb_each_other() -> None:
    with rtnetlink.open_socket() as via:
        for number in range(24):
            make(via, link_name(number))
        parts = [[link_name(n) for n in range(start, start + 6)] for start in (0, 6, 12)]
        results: list[dict[str, int]] = []
        workers = [
            threading.Thread(target=lambda part=part: results.append(delete_links(part)))
            for part in parts
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(set(result.values()) == {0} for result in results)
        assert len(results) == len(parts)
        assert names(via) == {link_name(number) for number in range(18, 24)}


@on_a_node
def test_a_link_made_again_under_a_doomed_name_is_left_alone() -> None:
    engine = Engine(Host(), link_drivers())
    for number in (1, 2):
        engine.apply(str(number), attachment(number), new_namespace())
    numbers = {link_name(n): engine.number(link_name(n)) or 0 for n in (1, 2)}
    assert all(numbers.values())
    assert delete_links(engine.withdraw("1")) == {link_name(1): 0}
    engine.apply("1", attachment(1), new_namespace())
    assert delete_links(list(numbers), numbers) == {link_name(1): FOREIGN, link_name(2): 0}
    with rtnetlink.open_socket() as via:
        assert names(via) == {link_name(1)}
    assert engine.drift(["1"]) == {}


def test_the_groups_are_fixed_apart_and_not_that_of_everything() -> None:
    assert len({LIVE_GROUP, DOOMED_GROUP, 0}) == 3
