"""ADD, DEL and VERSION against kernel truth: what the result promises is there."""

from __future__ import annotations

import json
from ipaddress import ip_interface, ip_network
from pathlib import Path

from weft.lab import entering, truth
from weft.lab.conformance.case import Failed, NotApplicable, case, none_of, require
from weft.lab.conformance.station import Pod, Station, error_problems, promised
from weft.lab.runtime import Attachment, Json, order

_DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}


def _add(station: Station) -> None:
    with station.pod() as pod:
        last = pod.outcome.calls[-1]
        require(last.json is not None, "standard output is not exactly one JSON object")
        version = pod.result.get("cniVersion")
        require(
            version == station.runtime.version,
            f"the result says cniVersion {version!r}, the request {station.runtime.version!r}",
        )


def _interface(station: Station) -> None:
    with station.pod() as pod:
        ifname = pod.attachment.ifname
        require(ifname in truth.links(pod.network), f"there is no {ifname} in the namespace")
        require(truth.is_up(pod.network, ifname), f"{ifname} is not up")


def _other_name(station: Station) -> None:
    with station.pod(station.fresh(ifname="net-15-letters0"[:15])) as pod:
        require(
            truth.is_up(pod.network, pod.attachment.ifname),
            f"there is no {pod.attachment.ifname} that is up in the namespace",
        )


def _addresses(station: Station) -> None:
    with station.pod() as pod:
        wanted = set(promised(pod.result))
        if not wanted:
            raise NotApplicable("the result has no addresses")
        held = truth.addresses(pod.network, pod.attachment.ifname)
        none_of(f"{a} is promised but not there" for a in sorted(wanted - held))
        none_of(f"{a} is there but not promised" for a in sorted(held - wanted))


def _described(pod: Pod) -> list[Json]:
    interfaces: list[Json] = pod.result.get("interfaces", [])
    if not interfaces:
        raise NotApplicable("the result lists no interfaces")
    return interfaces


def _interfaces(station: Station) -> None:
    with station.pod() as pod:
        inside, host = truth.links(pod.network), truth.links(entering.OWN)
        problems = []
        for entry in _described(pod):
            sandbox = entry.get("sandbox")
            if sandbox and sandbox != str(pod.network):
                problems.append(f"{entry['name']}: sandbox is {sandbox}")
            link = (inside if sandbox else host).get(entry["name"])
            if link is None:
                problems.append(f"{entry['name']} is listed but not there")
            elif entry.get("mac") and entry["mac"].lower() != link["address"]:
                problems.append(f"{entry['name']}: mac {entry['mac']}, kernel {link['address']}")
        names = [e["name"] for e in _described(pod) if e.get("sandbox")]
        if pod.attachment.ifname not in names:
            problems.append(f"{pod.attachment.ifname} is not listed with its sandbox")
        none_of(problems)


def _indexes(station: Station) -> None:
    with station.pod() as pod:
        interfaces = _described(pod)
        problems = []
        for entry in pod.result.get("ips", ()):
            index = entry.get("interface")
            if index is None or not 0 <= index < len(interfaces):
                problems.append(f"{entry.get('address')}: interface {index!r}")
            elif interfaces[index]["name"] != pod.attachment.ifname:
                problems.append(f"{entry['address']} belongs to {interfaces[index]['name']}")
        none_of(problems)


def _mtu(station: Station) -> None:
    with station.pod() as pod:
        stated = {e["name"]: e["mtu"] for e in _described(pod) if e.get("sandbox") and "mtu" in e}
        if not stated:
            raise NotApplicable("the result states no mtu (1.1.0, optional)")
        links = truth.links(pod.network)
        none_of(
            f"{name}: mtu {mtu}, kernel {links[name]['mtu']}"
            for name, mtu in stated.items()
            if links[name]["mtu"] != mtu
        )


def _routes(station: Station) -> None:
    with station.pod() as pod:
        wanted = pod.result.get("routes", [])
        if not wanted:
            raise NotApplicable("the result has no routes")
        problems = []
        for route in wanted:
            family = ip_network(route["dst"], strict=False).version
            spelled = "default" if route["dst"] == _DEFAULTS[family] else route["dst"]
            bare = spelled.removesuffix("/32").removesuffix("/128")
            there = [r for r in truth.routes(pod.network, family) if r["dst"] in {spelled, bare}]
            if not there:
                problems.append(f"the route to {route['dst']} is promised but not there")
            elif route.get("gw") and route["gw"] not in {r.get("gateway") for r in there}:
                problems.append(f"the route to {route['dst']} does not go by {route['gw']}")
        none_of(problems)


def _loopback(station: Station) -> None:
    with station.pod() as pod:
        if not truth.is_up(pod.network, "lo"):
            raise NotApplicable("left to the loopback plugin, which runtimes call beside the list")
        held = truth.addresses(pod.network, "lo")
        require("127.0.0.1/8" in held, "lo is up without 127.0.0.1/8")


def _delete(station: Station) -> None:
    before = station.host_links()
    with station.pod() as pod:
        outcome = station.runtime.delete(pod.attachment)
        require(outcome.is_good, f"DEL failed: {outcome.failure}")
        left = set(truth.links(pod.network)) - {"lo"}
        require(not left, f"DEL left {', '.join(sorted(left))} in the namespace")
        extra = station.new_links(before)
        require(not extra, f"DEL left {', '.join(sorted(extra))} on the node")


def _again(station: Station) -> None:
    with station.pod() as pod:
        require(station.runtime.delete(pod.attachment).is_good, "DEL failed")
        outcome = station.runtime.add(pod.attachment)
        require(outcome.is_good, f"ADD after DEL failed: {outcome.failure}")
        held = truth.addresses(pod.network, pod.attachment.ifname)
        missing = set(promised(outcome.result or {})) - held
        require(not missing, f"after the second ADD {missing} are not there")


def _occupied(station: Station) -> None:
    attachment = station.fresh()
    with station.namespace(attachment) as network:
        entering.ip_batch(network, f"link add {attachment.ifname} type veth peer name other0\n")
        mac = truth.links(network)[attachment.ifname]["address"]
        outcome = station.runtime.add(attachment)
        none_of(error_problems(outcome.calls[-1]))
        now = truth.links(network).get(attachment.ifname, {}).get("address")
        require(now == mac, "the interface that was there has been replaced or removed")


def _previous(station: Station) -> None:
    problems = []
    for plugin in station.runtime.plugins:
        attachment = station.fresh()
        with station.namespace(attachment) as network:
            entering.ip_batch(network, "link set lo up\n")
            env, config = station.request(plugin, "ADD", attachment)
            config["prevResult"] = _marked(station, config.get("prevResult"))
            call = station.send(plugin, env, config, undo=True)
            if call.status != 0:
                problems.append(call.summary)
            elif "kit-marker" not in {
                e.get("name") for e in (call.json or {}).get("interfaces", ())
            }:
                problems.append(f"{plugin['type']} drops an interface of prevResult")
    none_of(problems)


def _marked(station: Station, given: Json | None) -> Json:
    """A previous result with one more interface, by which to see whether it is kept."""
    if order(station.runtime.version) < (0, 3, 0):
        raise NotApplicable("prevResult exists from 0.3.0")
    base = given or {"cniVersion": station.runtime.version, "interfaces": [], "ips": []}
    marker = {"name": "kit-marker", "mac": "02:00:00:00:00:77"}
    return {**base, "interfaces": [*base.get("interfaces", ()), marker]}


def _declares(station: Station, capability: str) -> None:
    if not any(p.get("capabilities", {}).get(capability) for p in station.runtime.plugins):
        raise NotApplicable(f"the list declares no capability `{capability}`")


def _mac(station: Station) -> None:
    _declares(station, "mac")
    mac = "02:11:22:33:44:55"
    with station.pod(station.fresh(capabilities={"mac": mac})) as pod:
        held = truth.links(pod.network)[pod.attachment.ifname]["address"]
        require(held == mac, f"asked for {mac}, the interface has {held}")


def _ips(station: Station) -> None:
    _declares(station, "ips")
    with station.pod() as holder:
        given = [ip_interface(address) for address in promised(holder.result)]
        if not given:
            raise NotApplicable("the chain assigns no addresses")
        # far enough from what is handed out in order, near enough to be in the same range
        free = [f"{address.ip + 20}/{address.network.prefixlen}" for address in given]
        with station.pod(station.fresh(capabilities={"ips": free})) as pod:
            got = promised(pod.result)
            require(set(free) <= set(got), f"asked for {free}, got {got}")


def _version(station: Station) -> None:
    problems = []
    for plugin in station.runtime.plugins:
        stdin = json.dumps({"cniVersion": station.runtime.version}).encode()
        call = station.send(plugin, {"CNI_COMMAND": "VERSION"}, stdin)
        body = call.json or {}
        if call.status != 0 or not isinstance(body.get("supportedVersions"), list):
            problems.append(f"{plugin['type']}: {call.summary}")
        elif station.runtime.version not in body["supportedVersions"]:
            problems.append(f"{plugin['type']} does not list {station.runtime.version}")
    none_of(problems)


def _echo(station: Station) -> None:
    problems = []
    for plugin in station.runtime.plugins:
        versions = station.runtime.supported(plugin["type"])
        for version in (versions[0], versions[-1]):
            stdin = json.dumps({"cniVersion": version}).encode()
            call = station.send(plugin, {"CNI_COMMAND": "VERSION"}, stdin)
            answered = (call.json or {}).get("cniVersion")
            if answered != version:
                problems.append(f"{plugin['type']} answers {answered} to {version}")
    none_of(problems)


def _bare_version(station: Station) -> None:
    problems = []
    for plugin in station.runtime.plugins:
        call = station.send(plugin, {"CNI_COMMAND": "VERSION"}, b"")
        if call.status != 0 or not (call.json or {}).get("supportedVersions"):
            problems.append(call.summary or plugin["type"])
    none_of(problems)


def _args(station: Station) -> None:
    args = (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=kit;"
        "K8S_POD_INFRA_CONTAINER_ID=kit;K8S_POD_UID=5d2f3e0c-0000-4000-8000-000000000001"
    )
    with station.pod(station.fresh(args=args)):
        return


def _two_interfaces(station: Station) -> None:
    first = station.fresh()
    with station.pod(first) as pod:
        other = Attachment(container=first.container, netns=first.netns, ifname="net1")
        try:
            outcome = station.runtime.add(other)
            if not outcome.is_good:
                raise Failed(f"ADD of a second interface failed: {outcome.failure}")
            shared = set(promised(outcome.result or {})) & set(promised(pod.result))
            require(not shared, f"both interfaces got {shared}")
            undone = station.runtime.delete(other)
            require(undone.is_good, f"DEL of the second interface failed: {undone.failure}")
            held = truth.addresses(Path(first.netns), "eth0")
            gone = set(promised(pod.result)) - held
            require(not gone, f"DEL of the second interface took {gone} from the first")
        finally:
            station.runtime.delete(other)


CASES = (
    case("verbs.add", _add, "2, 5", "ADD answers one JSON object in the caller's version"),
    case("verbs.interface", _interface, "2 ADD", "the interface exists and is up"),
    case("verbs.ifname", _other_name, "2 CNI_IFNAME", "a name of 15 characters is honoured"),
    case("verbs.addresses", _addresses, "5", "addresses are those promised, no more, no fewer"),
    case(
        "verbs.interfaces",
        _interfaces,
        "5",
        "every listed interface exists with its MAC and sandbox",
    ),
    case("verbs.indexes", _indexes, "5", "every address points to the container's interface"),
    case("verbs.mtu", _mtu, "5", "a stated MTU is the kernel's"),
    case("verbs.routes", _routes, "5", "every promised route exists"),
    case("verbs.loopback", _loopback, "practice", "loopback is up"),
    case("verbs.delete", _delete, "2 DEL", "DEL removes both ends"),
    case("verbs.again", _again, "2 ADD", "ADD works after DEL in the same namespace"),
    case(
        "verbs.occupied",
        _occupied,
        "2 ADD",
        "ADD fails where the interface exists, and leaves it alone",
    ),
    case("verbs.previous", _previous, "2 ADD", "prevResult is passed on"),
    case("verbs.mac", _mac, "CONVENTIONS", "runtimeConfig.mac is honoured"),
    case("verbs.ips", _ips, "CONVENTIONS", "runtimeConfig.ips is honoured"),
    case(
        "verbs.args", _args, "CONVENTIONS", "CNI_ARGS as Kubernetes runtimes send them are accepted"
    ),
    case(
        "verbs.second",
        _two_interfaces,
        "3",
        "a second interface of one container is a second attachment",
    ),
    case("verbs.version", _version, "2 VERSION", "VERSION lists the version in use"),
    case("verbs.version-echo", _echo, "2 VERSION", "VERSION answers in the caller's version"),
    case(
        "verbs.version-bare", _bare_version, "2 VERSION", "VERSION needs no input but CNI_COMMAND"
    ),
)
