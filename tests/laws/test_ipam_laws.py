"""Laws of address assignment, held against arbitrary histories of claims, ADDs, DELs and time.

A model keeps the truth in the plainest way - a set of holders and a list of releases - and every
step of the machine compares. The pools are small enough to run dry all the time.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from weft.ipam.audit import differences, usage
from weft.ipam.plan import plan
from weft.ipam.request import Assigned, NeedBlock, Request
from weft.ipam.view import View
from weft.model.addresses import Address, range_of
from weft.model.attachment import AttachmentKey
from weft.model.errors import Exhausted, Invalid, NotReady
from weft.model.ip_block import IPBlock, new_block
from weft.model.ip_pool import IPPool, IPPoolSpec, block_length, pool_prefix
from weft.model.metadata import Metadata

COOLDOWN, FLOOR = 30.0, 5.0
OWNER = "default/db-0"


def make_pool(name: str, spec: IPPoolSpec) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=spec)


V4_SPECS = st.sampled_from(
    [
        IPPoolSpec(cidr="10.0.0.0/28", block_size=30),
        IPPoolSpec(
            cidr="10.0.0.0/28",
            block_size=30,
            excludes=("10.0.0.4/30", "10.0.0.9"),
            gateway="10.0.0.1",
        ),
        IPPoolSpec(cidr="10.0.0.0/29", reservations={"10.0.0.3": OWNER, "10.0.0.5": "a note"}),
        IPPoolSpec(cidr="10.0.0.0/29", block_size=32),
        IPPoolSpec(cidr="10.0.0.0/31"),
        IPPoolSpec(cidr="10.0.0.7/32"),
    ]
)
V6_SPECS = st.sampled_from(
    [
        IPPoolSpec(cidr="fd00::/125", block_size=126),
        IPPoolSpec(cidr="fd00::/127"),
        IPPoolSpec(cidr="fd00::9/128"),
        IPPoolSpec(cidr="fd00::/48", excludes=("fd00::1-fd00::3f",)),
    ]
)


def never_for_everybody(pool: IPPool) -> set[Address]:
    """By listing them: excluded, gateway, network, broadcast, reserved."""
    prefix = pool_prefix(pool)
    spec = pool.spec
    kept = {ip_address(text) for text in spec.reservations}
    if spec.gateway is not None:
        kept.add(ip_address(spec.gateway))
    for text in spec.excludes:
        if "-" in text:
            first, last = (int(ip_address(part)) for part in text.split("-"))
            kept.update(type(prefix.network_address)(each) for each in range(first, last + 1))
        else:
            kept.update(ip_network(text))
    if prefix.num_addresses > 2:
        kept.add(prefix.network_address)
        if prefix.version == 4:
            kept.add(prefix.broadcast_address)
    return kept


class Addresses(RuleBasedStateMachine):
    """ADDs, DELs, claims by this node and another, and time, in any order."""

    @initialize(v4=V4_SPECS, v6=V6_SPECS)
    def begin(self, v4: IPPoolSpec, v6: IPPoolSpec) -> None:
        self.pools = {"v4": make_pool("v4", v4), "v6": make_pool("v6", v6)}
        self.view = View("here", cooldown=COOLDOWN, cooldown_floor=FLOOR)
        for pool in self.pools.values():
            self.view.set_pool(pool)
        self.now = 1000.0
        self.count = 0
        self.holding: dict[Address, tuple[AttachmentKey, int]] = {}
        self.freed: dict[Address, float] = {}
        self.ended: list[tuple[Address, int]] = []
        self.blocks: dict[str, IPBlock] = {}

    def ask(self, request: Request) -> Assigned:
        """Plan, claiming blocks as an agent does, and commit."""
        for _ in range(40):
            answer = plan(self.view, request, self.now)
            if isinstance(answer, NeedBlock):
                block = new_block(answer.cidr, pool=answer.pool, node="here")
                assert block.metadata.name not in self.blocks, "asked for a block that is held"
                self.blocks[block.metadata.name] = block
                self.view.set_block(block)
                continue
            assert plan(self.view, request, self.now) == answer, "a plan changes nothing"
            self.view.commit(answer)
            self.view.commit(answer)  # idempotent
            return answer
        raise AssertionError("planning does not come to an end")

    def request(self, **how: object) -> Request:
        self.count += 1
        key = AttachmentKey("net", f"c{self.count}", "eth0")
        return Request(key=key, **how)  # type: ignore[arg-type]

    def for_everybody(self, version: int) -> list[Address]:
        """Unused addresses this node may hand out or claim, by listing them (small pools)."""
        pool = self.pools[f"v{version}"]
        kept = never_for_everybody(pool)
        elsewhere = {
            address
            for block in self.blocks.values()
            if block.spec.node != "here"
            for address in ip_network(block.spec.cidr)
        }
        return [
            address
            for address in pool_prefix(pool)
            if address not in kept and address not in elsewhere and address not in self.holding
        ]

    def check_choice(self, address: Address, *, of_all: bool) -> None:
        """The laws for one address just assigned from the pool."""
        pool = self.pools[f"v{address.version}"]
        assert address in pool_prefix(pool)
        assert address not in never_for_everybody(pool)
        assert address not in self.holding, "one address, two holders"
        freed = self.freed.get(address)
        if freed is None:
            return
        assert self.now - freed >= FLOOR
        if of_all and pool_prefix(pool).num_addresses < 1000:
            others = [each for each in self.for_everybody(address.version) if each != address]
            if self.now - freed < COOLDOWN:
                assert all(each in self.freed for each in others), "an unused one was left"
            held = [
                ip_network(block.spec.cidr)
                for block in self.blocks.values()
                if block.spec.node == "here"
            ]
            assert not any(
                each not in self.freed and any(each in block for block in held) for each in others
            ), "a never-used one of a held block was left"
            # longest released first; blocks claimed by nobody hold no released address
            assert all(self.freed.get(each, freed) >= freed for each in others)

    def take(self, answer: Assigned, *, of_all: bool) -> None:
        for held in answer.addresses:
            self.check_choice(held.address, of_all=of_all)
        for held in answer.addresses:
            self.freed.pop(held.address, None)
            self.holding[held.address] = (answer.key, held.sequence)

    @rule(family=st.sampled_from(["4", "6", "both", "4 and perhaps 6"]))
    def add(self, family: str) -> None:
        needs = {
            "4": ("required", "off"),
            "6": ("off", "required"),
            "both": ("required", "required"),
            "4 and perhaps 6": ("required", "best-effort"),
        }[family]
        before = dict(self.holding)
        try:
            answer = self.ask(self.request(ipv4=needs[0], ipv6=needs[1]))
        except Exhausted as error:
            assert "pool" in error.message
            assert before == self.holding
            for version, need in ((4, needs[0]), (6, needs[1])):
                free = self.for_everybody(version) if self.is_small(version) else [None]
                ready = [
                    each
                    for each in free
                    if each is None or self.now - self.freed.get(each, -1e9) >= FLOOR
                ]
                if need == "required" and not ready:
                    return
            raise AssertionError(f"refused although addresses were free: {error}") from error
        versions = {held.address.version for held in answer.addresses}
        assert {v for v, n in ((4, needs[0]), (6, needs[1])) if n == "required"} <= versions
        assert ("best-effort" in needs and 6 not in versions) == bool(answer.notes)
        self.take(answer, of_all=True)

    def is_small(self, version: int) -> bool:
        return pool_prefix(self.pools[f"v{version}"]).num_addresses < 1000

    @rule(number=st.integers(0, 17))
    def add_requested(self, number: int) -> None:
        address = ip_address("10.0.0.0") + number
        try:
            answer = self.ask(self.request(ipv6="off", addresses=(address,)))
        except NotReady as error:
            assert error.reason == "address-cooling"
            assert self.now - self.freed[address] < FLOOR
            return
        except Invalid as error:
            assert error.reason == "address-taken"
            pool = self.pools["v4"]
            assert (
                address not in pool_prefix(pool)
                or address in never_for_everybody(pool)
                or address in self.holding
                or address not in self.for_everybody(4)
            )
            return
        assert [held.address for held in answer.addresses] == [address]
        self.take(answer, of_all=False)

    @rule()
    def add_owner_of_a_reservation(self) -> None:
        reserved = [
            ip_address(text)
            for text, owner in self.pools["v4"].spec.reservations.items()
            if owner == OWNER
        ]
        try:
            answer = self.ask(self.request(ipv6="off", owner=OWNER))
        except NotReady:
            assert any(
                each in self.holding or self.now - self.freed.get(each, -1e9) < FLOOR
                for each in reserved
            )
            return
        except Exhausted:
            assert not reserved
            return
        except Invalid as error:
            assert error.reason == "address-taken"
            assert any(
                each in ip_network(block.spec.cidr)
                for each in reserved
                for block in self.blocks.values()
                if block.spec.node != "here"
            )
            return
        if reserved:
            address = answer.addresses[0].address
            assert address in reserved
            assert address not in self.holding
            self.freed.pop(address, None)
            self.holding[address] = (answer.key, answer.addresses[0].sequence)
        else:
            self.take(answer, of_all=True)

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.holding, key=str)))
        _, sequence = self.holding.pop(address)
        assert self.view.release(address, sequence, self.now)
        assert not self.view.release(address, sequence, self.now), "freed exactly once"
        self.freed[address] = self.now
        self.ended.append((address, sequence))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def delete_late(self, data: st.DataObject) -> None:
        """A release of an earlier holding does nothing to the present one."""
        address, sequence = data.draw(st.sampled_from(self.ended))
        assert not self.view.release(address, sequence, self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, FLOOR, COOLDOWN - FLOOR, COOLDOWN]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 7))
    def another_node_claims(self, number: int) -> None:
        pool = self.pools["v4"]
        blocks = list(pool_prefix(pool).subnets(new_prefix=block_length(pool)))
        block = new_block(blocks[number % len(blocks)], pool="v4", node="there")
        if block.metadata.name not in self.blocks:
            self.blocks[block.metadata.name] = block
            self.view.set_block(block)

    @rule()
    def restart(self) -> None:
        """A new view, told of everything in another order, is worth the old one."""
        old = self.view
        self.view = View("here", cooldown=COOLDOWN, cooldown_floor=FLOOR)
        for address, (key, sequence) in reversed(self.holding.items()):
            self.view.adopt(address, key, sequence)
            self.view.adopt(address, key, sequence)
        for version, ledger in old.ledgers.items():
            for number, released in reversed(ledger.released.items()):
                address = ip_address("10.0.0.0" if version == 4 else "fd00::")
                address = type(address)(number)
                self.view.cool(address, released.sequence, released.at)
        for block in reversed(self.blocks.values()):
            self.view.set_block(block)
        for pool in reversed(self.pools.values()):
            self.view.set_pool(pool)

    @invariant()
    def the_view_and_the_model_agree(self) -> None:
        if not hasattr(self, "view"):
            return
        attachments: dict[AttachmentKey, list[Address]] = {}
        for address, (key, _) in self.holding.items():
            attachments.setdefault(key, []).append(address)
        assert differences(self.view, attachments) == ()
        for each in usage(self.view, self.now):
            version = 4 if each.pool == "v4" else 6
            mine = [address for address in self.holding if address.version == version]
            cooling = [
                address
                for address, at in self.freed.items()
                if address.version == version and at + COOLDOWN > self.now
            ]
            assert (each.used, each.cooling) == (len(mine), len(cooling))
        assert self.view.problems() == ()


TestAddresses = Addresses.TestCase
TestAddresses.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(deadline=None, max_examples=30)
@given(length=st.integers(28, 32), waiting=st.integers(1, 4))
def test_one_free_address_serves_exactly_one_of_those_who_wait(length: int, waiting: int) -> None:
    pool = make_pool("p", IPPoolSpec(cidr=f"10.0.0.0/{length}"))
    view = View("here", cooldown=COOLDOWN, cooldown_floor=FLOOR)
    view.set_pool(pool)
    view.set_block(new_block(pool_prefix(pool), pool="p", node="here"))
    held = []
    whole = range_of(pool_prefix(pool))
    size = whole.last - whole.first + 1
    usable = size if size <= 2 else size - 2
    for number in range(usable):
        request = Request(key=AttachmentKey("n", f"c{number}", "eth0"), ipv6="off")
        answer = plan(view, request, 0.0)
        assert isinstance(answer, Assigned)
        view.commit(answer)
        held.append(answer)
    view.release(held[0].addresses[0].address, held[0].addresses[0].sequence, 100.0)
    served = 0
    for number in range(waiting):
        request = Request(key=AttachmentKey("n", f"w{number}", "eth0"), ipv6="off")
        try:
            answer = plan(view, request, 100.0 + FLOOR)
        except Exhausted:
            continue
        assert isinstance(answer, Assigned)
        view.commit(answer)
        served += 1
    assert served == 1
