"""Which links go on believing router advertisements when the node begins to forward."""

from weft.agent.forwarding import uplinks
from weft.kernel.host import HostLink


def link(name: str, kind: str) -> HostLink:
    return HostLink(index=1, name=name, mtu=1500, alias="", kind=kind)


LINKS = [
    link("lo", ""),
    link("ens3", ""),
    link("bond0", "bond"),
    link("docker0", "bridge"),
    link("veth1", "veth"),
    link("br0", "bridge"),
]


def test_the_machines_own_devices_are_uplinks_and_bridges_of_containers_are_not() -> None:
    assert uplinks(LINKS, []) == ["ens3", "bond0"]


def test_whatever_a_default_route_leads_to_is_an_uplink() -> None:
    assert uplinks(LINKS, ["br0"]) == ["ens3", "bond0", "br0"]
