"""Cloud Foundry's `netOutRules` as an egress list, and its `metadata` as labels.

Source of the forms: garden's `NetOutRule` (code.cloudfoundry.org/garden, net_out_rule.go), as
garden-external-networker puts it into `runtimeConfig`; the meaning of the static keys is that of
silk-release's cni-wrapper-plugin. Absent: nothing is restricted. `null` and `[]` (Go writes a nil
slice as `null`): nothing is allowed. A rule that its documentation and that plugin read
differently - no networks, no ports of TCP, a key that neither knows - is refused, not guessed.

    netOutRules                            what may be connected to outside of containers and node
    dns.nameservers, link-local ones       port 53 of the node (Bosh DNS)
    host_tcp_services, host_udp_services   further addresses and ports of the node
    deny_networks.always|running|staging   ranges that no rule opens
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from weft.model.addresses import AddressRange, address_of, parse_address, parse_range
from weft.model.boxes import without
from weft.model.egress import (
    ALL,
    HIGHEST,
    ICMP,
    ICMP6,
    TCP,
    UDP,
    EgressList,
    Flow,
    canonical,
)
from weft.model.errors import Invalid
from weft.model.names import check_labels, printable
from weft.wire.cni.config import Conf, DenyNetworks
from weft.wire.cni.document import convert, fold, project, shape

FIELD = "runtimeConfig.netOutRules"
LABELS = "cloudfoundry.org/"
"""The prefix of labels from `metadata`."""
METADATA = ("app_id", "space_id", "org_id", "policy_group_id", "container_workload")

_KEY = fold("netOutRules")
_ANY = 255  # type or code; -1 in Cloud Controller's form
_PROTOCOLS: Mapping[int | str, str] = {
    **dict(enumerate(("all", "tcp", "udp", "icmp", "icmpv6"))),
    **{name: name for name in ("all", "tcp", "udp", "icmp", "icmpv6")},
}
_NUMBERS = {"all": ALL, "tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMP6}
_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("protocol", "networks", "ports", "icmps", "log"),
    "networks": ("start", "end"),
    "ports": ("start", "end"),
    "icmps": ("type", "code"),
}
_RANGE = shape("start", "end")
_RULE = shape("protocol", "log", networks=_RANGE, ports=_RANGE, icmps=shape("type", "code"))
_WORKLOADS = {"app": "running", "task": "running", "staging": "staging"}
_RECENT = 32
MAX_SERVICES = 64
MAX_RANGES = 65_536
"""What rules may make before equal ones are taken together: some 0.3 s of the agent's time."""
MAX_DENIED = 256


class _Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: str = ""
    end: str = ""


class _Ports(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: int = 0
    end: int | None = None


class _Icmp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: int = 0  # Go leaves 0 out
    code: int | None = None


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    protocol: int | str = 0  # Go leaves 0, "all", out
    networks: tuple[_Network | str, ...] = ()
    ports: tuple[_Ports, ...] = ()
    icmps: _Icmp | None = None
    log: bool = False


class _Recent:
    """Lists of late, by a digest of what they were made of: thousands of containers have the same
    rules, and to read 500 takes longer than everything else in an ADD."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, EgressList] = OrderedDict()

    def get(self, digest: bytes) -> EgressList | None:
        found = self._found.get(digest)
        if found is not None:
            self._found.move_to_end(digest)
        return found

    def put(self, digest: bytes, made: EgressList) -> None:
        self._found[digest] = made
        while len(self._found) > _RECENT:
            self._found.popitem(last=False)


_recent = _Recent()


def egress(
    runtime_config: Mapping[str, object], metadata: Mapping[str, object], conf: Conf
) -> EgressList | None:
    """The list that a container is to have; None: it is not restricted. Raises Invalid (code 6 or
    7) naming the place."""
    names = [key for key in runtime_config if key == "netOutRules" or fold(key) == _KEY]
    if not names:
        if conf.deny_networks != DenyNetworks():
            raise _invalid(
                "deny_networks", f"counts only beside {FIELD}, which the runtime did not pass"
            )
        return None
    given = runtime_config[names[-1]]
    workload = metadata.get("container_workload")
    try:
        digest = hashlib.sha256(msgspec.msgpack.encode((given, conf, workload))).digest()
    except OverflowError:  # a number of no use, which is told of where it stands
        return _made(given, conf, workload)
    found = _recent.get(digest)
    if found is None:
        found = _made(given, conf, workload)
        _recent.put(digest, found)
    return found


def _made(given: object, conf: Conf, workload: object) -> EgressList:
    if given is None:
        given = []
    if not isinstance(given, list | tuple):
        raise _invalid(FIELD, "is not a list of rules")
    flows = _opened(given, _denied(conf.deny_networks, workload))
    services = tuple(_services(conf))
    if len(services) > MAX_SERVICES:
        raise _invalid("host_tcp_services", f"more than {MAX_SERVICES} services of the node")
    try:
        return EgressList(flows=canonical(flows), services=canonical(services))
    except ValueError as error:
        raise _invalid(FIELD, str(error)) from None


# -- rules


def _opened(given: Sequence[object], denied: list[AddressRange]) -> Iterator[Flow]:
    """What the rules open, without what is denied. A rule is all of its networks times all of its
    ports, so what is written in little may be long: how long is told before it is made."""
    made = 0
    for number, rule in enumerate(_rules(given)):
        for flow in _flows(rule, f"{FIELD}[{number}]"):
            for cut in _allowed(flow, denied):
                made += 1
                if made > MAX_RANGES:
                    raise _invalid(
                        f"{FIELD}[{number}]",
                        f"with the rules before it makes more than {MAX_RANGES} ranges of "
                        "networks and ports",
                    )
                yield cut


def _rules(given: Sequence[object]) -> Sequence[_Rule]:
    """All rules. Together where they are written as Go writes them; else one by one, which takes
    ten times as long and says what is wrong, and where."""
    try:
        return msgspec.convert(given, tuple[_Rule, ...])
    except msgspec.ValidationError:
        return tuple(_rule(each, f"{FIELD}[{number}]") for number, each in enumerate(given))


def _rule(given: object, place: str) -> _Rule:
    if not isinstance(given, dict):
        raise _invalid(place, "is not a rule")
    for inside, known in _KEYS.items():
        found = given if not inside else _inside(given, inside)
        for each in found if isinstance(found, list | tuple) else [found]:
            if isinstance(each, dict):
                _refuse_unknown(each, known, ".".join(filter(None, (place, inside))))
    return convert(project(given, _RULE), _Rule, place)


def _flows(rule: _Rule, place: str) -> Iterator[Flow]:
    protocol = _PROTOCOLS.get(rule.protocol)
    if protocol is None:
        words = printable(str(rule.protocol))
        raise _invalid(f"{place}.protocol", f"{words} is none of 0 (all) to 4 (icmpv6)")
    if not rule.networks:
        raise _invalid(
            f"{place}.networks",
            "is missing; name the ranges that are allowed (0.0.0.0 to 255.255.255.255 for all)",
        )
    spans = _spans(rule, protocol, place)
    for number, network in enumerate(rule.networks):
        found = _network(network, f"{place}.networks[{number}]")
        kind = _of_family(protocol, found.version, f"{place}.networks[{number}]")
        first, last = (address_of(found.version, n).packed for n in (found.first, found.last))
        for low, high in spans:
            yield Flow(kind, first, last, low, high, rule.log)


def _inside(given: Mapping[str, object], name: str) -> object:
    return next((inner for key, inner in given.items() if fold(key) == name), None)


def _refuse_unknown(given: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
    for key in given:
        if fold(key) not in known:
            raise _invalid(
                f"{place}.{printable(key)}",
                f"is not known ({', '.join(known)} are); it might allow less than the rest says",
            )


def _of_family(protocol: str, version: int, place: str) -> int:
    """The number of the protocol: ICMP of IPv6 is another, whatever it is called."""
    if protocol == "icmpv6" and version == 4:
        raise _invalid(place, "is IPv4, but the rule's protocol is icmpv6")
    if protocol == "icmp" and version == 6:
        raise _invalid(place, "is IPv6, but the rule's protocol is icmp; say icmpv6 (4)")
    return _NUMBERS[protocol]


def _spans(rule: _Rule, protocol: str, place: str) -> list[tuple[int, int]]:
    """Ports, or types and codes, that the rule allows."""
    if protocol not in ("tcp", "udp") and rule.ports:
        raise _invalid(f"{place}.ports", f"cannot be given for protocol {protocol}")
    if not protocol.startswith("icmp") and rule.icmps is not None:
        raise _invalid(f"{place}.icmps", f"cannot be given for protocol {protocol}")
    if protocol == "all":
        return [(0, HIGHEST)]
    if protocol.startswith("icmp"):
        return [_icmp(rule.icmps, f"{place}.icmps")]
    if not rule.ports:
        raise _invalid(f"{place}.ports", f"is missing; {protocol} needs ports (0 to 65535 for all)")
    return [_ports(each, f"{place}.ports[{n}]") for n, each in enumerate(rule.ports)]


def _ports(given: _Ports, place: str) -> tuple[int, int]:
    if given.end is None:
        raise _invalid(f"{place}.end", "is missing")
    if not 0 <= given.start <= given.end <= HIGHEST:
        raise _invalid(place, f"{given.start} to {given.end} is no range of ports (0 to 65535)")
    return given.start, given.end


def _icmp(given: _Icmp | None, place: str) -> tuple[int, int]:
    if given is None or given.code is None:
        raise _invalid(
            place if given is None else f"{place}.code",
            f"is missing; say type and code ({_ANY} for all)",
        )
    kind, code = (_ANY if each == -1 else each for each in (given.type, given.code))
    if not (0 <= kind <= _ANY and 0 <= code <= _ANY):
        raise _invalid(place, f"type {given.type}, code {given.code}: not within 0 to {_ANY}")
    if kind == _ANY:  # whatever the code says: iptables reads it so
        return 0, HIGHEST
    low, high = (0, _ANY) if code == _ANY else (code, code)
    return kind << 8 | low, kind << 8 | high


def _network(given: _Network | str, place: str) -> AddressRange:
    """A range `start` to `end`; as text an address, a CIDR or `first-last`."""
    try:
        if isinstance(given, str):
            return parse_range(given, place)
        first = parse_address(given.start, f"{place}.start")
        last = parse_address(given.end, f"{place}.end")
    except Invalid as error:
        raise Invalid(error.message, field=error.field, reason="invalid-config") from None
    if first.version != last.version or first > last:  # type: ignore[operator]  # one family
        raise _invalid(place, f"{first} to {last} is no range of addresses")
    return AddressRange(version=first.version, first=int(first), last=int(last))


# -- what the configuration adds and takes away


def _services(conf: Conf) -> Iterator[Flow]:
    for text in conf.dns.nameservers if conf.dns is not None else ():
        try:
            server = ipaddress.ip_address(text)
        except ValueError:
            continue  # judged where the answer is written
        if server.is_link_local:
            for protocol in (TCP, UDP):
                yield Flow(protocol, server.packed, server.packed, 53, 53)
    for name, protocol, services in (
        ("host_tcp_services", TCP, conf.host_tcp_services),
        ("host_udp_services", UDP, conf.host_udp_services),
    ):
        for number, text in enumerate(services):
            yield _service(text, protocol, f"{name}[{number}]")


def _service(text: str, protocol: int, place: str) -> Flow:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= HIGHEST
    if not colon or not good or (":" in bare) != (bare != host):
        raise _invalid(place, f"{printable(text)} is not ADDRESS:PORT, such as 169.254.0.2:9001")
    try:
        address = parse_address(bare, place)
    except Invalid as error:
        raise Invalid(error.message, field=place, reason="invalid-config") from None
    return Flow(protocol, address.packed, address.packed, int(port), int(port))


def _denied(networks: DenyNetworks, workload: object) -> list[AddressRange]:
    """Ranges that no rule opens: always, and those for this kind of container."""
    kind = _WORKLOADS.get(workload) if isinstance(workload, str) else None
    found = []
    if sum(map(len, msgspec.structs.astuple(networks))) > MAX_DENIED:
        raise _invalid("deny_networks", f"more than {MAX_DENIED} networks")
    for name in ("always", "running", "staging"):
        for number, text in enumerate(getattr(networks, name)):
            denied = _network(text, f"deny_networks.{name}[{number}]")
            if name in ("always", kind):
                found.append(denied)
    return found


def _allowed(flow: Flow, denied: list[AddressRange]) -> Iterator[Flow]:
    if not denied:
        yield flow
        return
    size = len(flow.first)
    first, last = (int.from_bytes(each, "big") for each in (flow.first, flow.last))
    ranges = [(each.first, each.last) for each in denied if each.version == flow.version]
    for low, high in without(first, last, ranges):
        ends = low.to_bytes(size, "big"), high.to_bytes(size, "big")
        yield Flow(flow.protocol, *ends, flow.low, flow.high, flow.log)


# -- metadata


def labels(metadata: Mapping[str, object]) -> dict[str, str]:
    """What Cloud Foundry knows of the container, as far as labels can say it."""
    found: dict[str, str] = {}
    for name in METADATA:
        value = metadata.get(name)
        if not isinstance(value, str) or not value:
            continue
        try:
            check_labels({f"{LABELS}{name}": value}, f"metadata.{name}")
        except Invalid:
            continue
        found[f"{LABELS}{name}"] = value
    return found


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", field=field, reason="invalid-config")
