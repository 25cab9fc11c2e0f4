"""Chains of weft and the reference plugins of Debian, driven on a node as libcni would."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acceptance import Host
from lies import HOST_MAC, Ears, Liar, honest, lies, tables
from weft.lab import entering, frames, probes, truth
from weft.lab.ears import Mouth, nonce
from weft.lab.invocation import Call
from weft.lab.runtime import Attachment, Outcome, Runtime
from weft.lab.wiring import OUTSIDE_V4, OUTSIDE_V6, node_addresses

BINS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
STATE = "/run/chains"
NODE4, NODE6 = node_addresses(0)
Json = dict[str, Any]

_ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
HOST_LOCAL: Json = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
    "routes": _ROUTES,
    "dataDir": f"{STATE}/networks",
}
STATIC: Json = {
    "type": "static",
    "addresses": [
        {"address": "10.77.0.9/24", "gateway": "10.77.0.1"},
        {"address": "fd77::9/64", "gateway": "fd77::1"},
    ],
    "routes": _ROUTES,
}
WEFT: Json = {"type": "weft"}


def ptp(ipam: Json = HOST_LOCAL, **keys: Any) -> Json:
    return {"type": "ptp", "ipam": ipam, **keys}


def bridge(ipam: Json = HOST_LOCAL, **keys: Any) -> Json:
    return {"type": "bridge", "bridge": "cni9", "isGateway": True, "ipam": ipam, **keys}


def weft(**keys: Any) -> Json:
    return {**WEFT, **keys}


def good(outcome: Outcome) -> Outcome:
    assert outcome.is_good, outcome.failure
    return outcome


class Chain:
    """One configuration list on one node; its pods answer at once (no DAD), as in most runtimes
    their loopback is up."""

    def __init__(
        self, host: Host, *plugins: Json, name: str = "chain", version: str = "1.0.0"
    ) -> None:
        conflist = {"cniVersion": version, "name": name, "plugins": list(plugins)}
        self.host = host
        self.runtime = Runtime(
            json.dumps(conflist).encode(),
            BINS,
            spawn=host.node.run,
            cache=host.node.path(f"{STATE}/results"),
            root=host.node.path("/"),
        )

    def attachment(self, name: str, **capabilities: Any) -> Attachment:
        return Attachment(container=name, netns=f"/run/netns/{name}", capabilities=capabilities)

    def try_add(self, name: str, **capabilities: Any) -> Outcome:
        """ADD in a new namespace, whatever comes of it."""
        self.host.make([name])
        with entering.network(self.host.network(name)):
            Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        entering.ip_batch(self.host.network(name), "link set lo up\n")
        return self.runtime.add(self.attachment(name, **capabilities))

    def add(self, name: str, **capabilities: Any) -> Pod:
        outcome = self.try_add(name, **capabilities)
        assert outcome.is_good, outcome.failure
        return Pod(self, name, outcome, capabilities)

    def drop(self, name: str, **capabilities: Any) -> None:
        """DEL in the chain's order, and the end of the namespace."""
        outcome = self.runtime.delete(self.attachment(name, **capabilities))
        assert outcome.is_good, outcome.failure
        self.host.unmake([name])


class Pod:
    """An attached container: what its chain answered."""

    def __init__(
        self, chain: Chain, name: str, outcome: Outcome, capabilities: Mapping[str, Any]
    ) -> None:
        self.chain = chain
        self.host = chain.host
        self.name = name
        self.outcome = outcome
        self.capabilities = capabilities
        self.result: Json = outcome.result or {}
        self.network = chain.host.network(name)

    @property
    def addresses(self) -> list[str]:
        return [ip["address"].split("/")[0] for ip in self.result["ips"]]

    @property
    def link(self) -> str:
        """The host's end, by the kernel's word."""
        (inside,) = json.loads(entering.output(self.network, ["ip", "-j", "link", "show", "eth0"]))
        every = json.loads(entering.output(self.host.node.network, ["ip", "-j", "link"]))
        (name,) = [each["ifname"] for each in every if each["ifindex"] == inside["link_index"]]
        return str(name)

    @property
    def liar(self) -> Liar:
        (shown,) = json.loads(entering.output(self.network, ["ip", "-j", "link", "show", "eth0"]))
        four, six = self.addresses
        return Liar(name=self.name, mac=shown["address"], ip4=four, ip6=six)

    def check(self) -> Outcome:
        return self.chain.runtime.check(self.chain.attachment(self.name, **self.capabilities))

    def check_weft(self) -> Call:
        """CHECK of weft alone, with the chain's result."""
        runtime = self.chain.runtime
        attachment = self.chain.attachment(self.name, **self.capabilities)
        (own,) = [plugin for plugin in runtime.plugins if plugin["type"] == "weft"]
        config = runtime.config(own, attachment, runtime.stored(attachment))
        env = runtime.environment("CHECK", attachment)
        return runtime.execute("weft", env, json.dumps(config).encode())

    def drop(self) -> None:
        self.chain.drop(self.name, **self.capabilities)

    def speaks(self) -> None:
        """Both families, three protocols, both ways with the node."""
        node = self.host.node.network
        four, six = self.addresses
        for own, other in ((four, NODE4), (six, NODE6)):
            assert probes.udp(node, self.network, own).answered, own
            assert probes.tcp(node, self.network, own).answered, own
            assert probes.icmp(node, own).answered, own
            heard = probes.tcp(self.network, node, other)
            assert heard.source == own, heard

    def reaches(self, other: Pod) -> None:
        """Other pods under their own addresses."""
        for mine, theirs in zip(self.addresses, other.addresses, strict=True):
            assert probes.udp(self.network, other.network, theirs).source == mine


@contextmanager
def ready(host: Host) -> Iterator[Host]:
    """The node's own ends of links are not made to wait for duplicates either; what chains keep on
    disk goes with the test."""
    files = Path("/proc/sys/net/ipv6/conf/default/accept_dad")
    host.shell(f"mkdir -p {STATE}/results")
    with entering.network(host.node.network):
        before = files.read_text()
        files.write_text("0")
    try:
        yield host
    finally:
        with entering.network(host.node.network):
            files.write_text(before)
        host.shell(f"rm -rf {STATE}")


def assert_guarded(pod: Pod, victim: Pod, *, gateway: str) -> None:
    """Nothing that the pod forges comes out anywhere or is learned, and honest frames do.
    `gateway`: the hardware address that its frames go to."""
    host = pod.host
    me, other = pod.liar, victim.liar

    def sent(frame: bytes) -> bytes:
        ours = frames.mac(HOST_MAC)
        return frames.mac(gateway) + frame[6:] if frame[:6] == ours else frame

    with Ears(host, [other]) as ears, Mouth(pod.network) as mouth:
        links = (pod.link, victim.link)
        before, told = _learned(host, links), {}
        for claim, mark, frame in lies(me, other):
            told[mark] = claim
            mouth.say(sent(frame))
        for goal, name in (
            (other.ip4, other.name),
            (other.ip6, other.name),
            (OUTSIDE_V4, "outside"),
            (OUTSIDE_V6, "outside"),
        ):
            mark = nonce()
            mouth.say(sent(honest(me, goal, mark)))
            assert ears.ears[name].hears(mark, 5.0), f"an honest frame to {goal} did not arrive"
        assert not {told[mark] for _, mark in ears.drain(told)}
        after = _learned(host, links)
        assert after == before, after ^ before


def _learned(host: Host, links: Collection[str]) -> set[str]:
    """Routes, addresses, and who has which hardware address on these links."""
    found = truth.neighbours(host.node.network)
    known = {f"{ip} on {dev} at {mac}" for (dev, ip), mac in found.items() if mac and dev in links}
    return known | tables(host)


def mac_of(host: Host, link: str) -> str:
    (shown,) = json.loads(entering.output(host.node.network, ["ip", "-j", "link", "show", link]))
    return str(shown["address"])


RATES = {"ingressRate": 10**8, "egressRate": 10**8}


def ports(host_port: int, inner: int) -> list[dict[str, object]]:
    return [{"hostPort": host_port, "containerPort": inner, "protocol": "tcp"}]


def until(holds: Callable[[], bool], patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def unchanged(pod: Pod) -> bool:
    """weft answered what it was given; an empty `dns`, which is none, apart."""
    calls = pod.outcome.calls
    at = next(n for n, call in enumerate(calls) if call.plugin == "weft")
    given, said = (calls[n].json or {} for n in (at - 1, at))
    return {k: v for k, v in given.items() if v} == {k: v for k, v in said.items() if v}


def properties(host: Host, link: str) -> tuple[object, ...]:
    """What of a link weft changes while it is adopted."""
    (shown,) = json.loads(host.shell(f"ip -j -d link show {link}"))
    localnet = host.shell(f"cat /proc/sys/net/ipv4/conf/{link}/route_localnet").strip()
    queues = host.shell(f"tc qdisc show dev {link}")
    return shown.get("group"), shown.get("ifalias"), shown["mtu"], localnet, queues
