"""What others can do to a node, as shell commands; and the foreign things that must survive it.

A command runs in the node, by the real `ip`, `nft` and `sysctl`, as another process. Words in
braces are of one container: its link, addresses and hardware address. `opens`: forged packets may
pass until it is mended, because rules that are not protected are gone, or a link that bears another
name and group is not told from somebody else's.
"""

from __future__ import annotations

from typing import NamedTuple


class Damage(NamedTuple):
    """One kind. `rules`: done to the packet rules, so impossible where these are protected."""

    name: str
    command: str
    rules: bool = False
    opens: bool = False


def _links() -> list[Damage]:
    return [
        Damage("link down", "ip link set {link} down"),
        Damage("link renamed", "ip link set {link} name stolen0"),
        Damage("link renamed and of another group", "ip link set {link} name stolen0 group 0",
               opens=True),
        Damage("link down and renamed", "ip link set {link} down; ip link set {link} name stolen0"),
        Damage("link with another MTU", "ip link set {link} mtu 1300"),
        Damage("link with another MAC", "ip link set {link} address 02:00:00:00:00:77"),
        Damage("link without its alias", "ip link set {link} alias ''"),
        Damage("link with another alias", "ip link set {link} alias mine"),
        Damage("link of another group", "ip link set {link} group 0"),
        Damage("link with other everything", "ip link set {link} mtu 1290 group 5 alias x"),
        Damage("link in a bridge", "ip link set {link} master foreign0"),
        Damage("address on the link", "ip addr add 192.0.2.77/24 dev {link}"),
        Damage("IPv6 address on the link", "ip addr add 2001:db8:77::1/64 dev {link}"),
    ]  # fmt: skip


def _routes() -> list[Damage]:
    return [
        Damage("route deleted", "ip route del {four}"),
        Damage("IPv6 route deleted", "ip -6 route del {six}"),
        Damage("routes flushed", "ip route flush proto 119"),
        Damage("IPv6 routes flushed", "ip -6 route flush proto 119"),
        Damage("route replaced", "ip route replace {four}/32 dev eth0"),
        Damage("IPv6 route replaced", "ip -6 route replace {six}/128 dev eth0"),
        Damage("route replaced by a gateway", "ip route replace {four}/32 via 198.51.100.1"),
        Damage("route replaced by a dead end", "ip route replace unreachable {four}/32"),
        Damage("route with another MTU", "ip route replace {four}/32 dev {link} mtu 1234"),
        Damage("route hidden", "ip route prepend {four}/32 dev eth0"),
        Damage("route hidden by a dead end", "ip route prepend blackhole {four}/32"),
        Damage("IPv6 route hidden by metric", "ip -6 route add {six}/128 dev eth0 metric 10"),
        Damage("IPv6 route hidden twice",
               "ip -6 route add {six}/128 dev eth0 metric 10;"
               "ip -6 route add {six}/128 dev lo metric 5"),
        Damage("IPv6 route hidden by a dead end",
               "ip -6 route add prohibit {six}/128 metric 3"),
    ]  # fmt: skip


def _neighbours() -> list[Damage]:
    other = "lladdr 02:00:00:00:00:66 dev {link}"
    return [
        Damage("neighbour deleted", "ip neigh del {four} dev {link}"),
        Damage("IPv6 neighbour deleted", "ip neigh del {six} dev {link}"),
        Damage("neighbours flushed", "ip neigh flush dev {link} nud permanent"),
        Damage("neighbour with another MAC", f"ip neigh change {{four}} {other} nud permanent"),
        Damage("IPv6 neighbour with another MAC", f"ip neigh change {{six}} {other} nud permanent"),
        Damage("neighbour not permanent",
               "ip neigh change {four} lladdr {mac} dev {link} nud stale"),
        Damage("IPv6 neighbour not permanent",
               "ip neigh change {six} lladdr {mac} dev {link} nud reachable"),
    ]  # fmt: skip


def _rules() -> list[Damage]:
    return [
        Damage(name, command, rules=True, opens=opens)
        for name, command, opens in (*_chains(), *_sets())
    ]


def _chains() -> tuple[tuple[str, str, bool], ...]:
    """Name, command, and whether forged packets pass meanwhile where rules are not protected."""
    first = "nft -a list chain inet weft from-pods | sed -n 's/.*# handle //p' | sed -n 2p"
    return (
        ("ruleset flushed", "nft flush ruleset; nft -f /run/foreign.nft", True),
        ("table deleted", "nft delete table inet weft", True),
        ("tables deleted", "nft delete table inet weft; nft delete table arp weft", True),
        ("ARP table deleted", "nft delete table arp weft", True),
        ("table flushed", "nft flush table inet weft", True),
        ("table asleep", "nft add table inet weft '{{ flags dormant; }}'", True),
        ("chain flushed", "nft flush chain inet weft from-pods", True),
        ("chain of guards flushed", "nft flush chain inet weft listed4", True),
        ("rule deleted", f"nft delete rule inet weft from-pods handle $({first})", True),
        ("rule in front", "nft insert rule inet weft from-pods accept", True),
        ("rule at the end", "nft add rule inet weft forward counter accept", False),
        ("rule that nobody can read",
         "nft insert rule inet weft forward limit rate 1/second burst 5 packets log", False),
        ("rule with a set of its own",
         "nft insert rule inet weft forward tcp dport '{{ 80, 443 }}' accept", False),
        ("hook deleted", "nft delete chain inet weft outbound", False),
        ("policy changed", "nft chain inet weft forward '{{ policy drop; }}'", False),
    )  # fmt: skip


def _sets() -> tuple[tuple[str, str, bool], ...]:
    """As `_chains`: elements and sets of ours, and what somebody else puts into our tables."""
    return (
        ("guards flushed", "nft flush set inet weft guard4", False),
        ("IPv6 guards flushed", "nft flush set inet weft guard6", False),
        ("element deleted",
         "nft delete element inet weft guard4 '{{ {link} . {mac} . {four} }}'", False),
        ("element of receivers deleted",
         "nft delete element inet weft local6 '{{ {link} . {six} }}'", False),
        ("element of somebody's",
         "nft add element inet weft guard4 '{{ {link} . {mac} . 203.0.113.9 }}'", True),
        ("element of receivers of somebody's",
         "nft add element inet weft local4 '{{ {link} . 203.0.113.9 }}'", False),
        ("pool deleted", "nft flush set inet weft pools4", False),
        ("pool of somebody's", "nft add element inet weft pools4 '{{ 203.0.113.0/24 }}'",
         False),
        ("pool swapped",
         "nft 'flush set inet weft pools4;"
         "add element inet weft pools4 {{ 10.0.0.0/8 }}'", False),
        ("set deleted",
         "nft 'flush chain inet weft outbound; flush chain inet weft untranslated;"
         "delete set inet weft routed'", False),
        ("set of another kind",
         "nft 'flush chain inet weft outbound; flush chain inet weft untranslated;"
         "delete set inet weft routed;"
         "add set inet weft routed {{ type inet_service; }}'", False),
        ("chain of somebody's", "nft add chain inet weft theirs", False),
        ("hook of somebody's",
         "nft 'add chain inet weft theirs {{ type filter hook forward priority 5; }};"
         "add rule inet weft theirs ip saddr 1.2.3.4 drop'", False),
        ("chain of somebody's, led to from ours",
         "nft 'add chain inet weft theirs; add rule inet weft theirs accept;"
         "insert rule inet weft from-pods jump theirs'", True),
        ("set of somebody's",
         "nft add set inet weft theirs '{{ type ipv4_addr; flags timeout; }}'", False),
        ("map of somebody's that leads to a chain of theirs",
         "nft 'add chain inet weft theirs;"
         "add map inet weft way {{ type ipv4_addr : verdict; }};"
         "add element inet weft way {{ 1.2.3.4 : jump theirs }}'", False),
        ("counter of somebody's", "nft add counter inet weft theirs", False),
        ("ARP chain flushed", "nft flush chain arp weft from-pods", True),
        ("ARP chain of somebody's", "nft add chain arp weft theirs", False),
        ("bridges' table deleted", "nft delete table bridge weft", False),
        ("bridges' chain flushed", "nft flush chain bridge weft port", False),
    )  # fmt: skip


def _sysctls() -> list[Damage]:
    link4, link6 = "net.ipv4.conf.{link}", "net.ipv6.conf.{link}"
    return [
        Damage(f"sysctl {name.format(link='LINK')} = {value}", f"sysctl -qw {name}={value}")
        for name, value in (
            ("net.ipv4.ip_forward", 0),
            ("net.ipv6.conf.all.forwarding", 0),
            ("net.ipv4.conf.eth0.forwarding", 0),
            ("net.ipv6.conf.eth0.accept_ra", 1),
            (f"{link4}.forwarding", 0),
            (f"{link4}.accept_redirects", 1),
            (f"{link4}.rp_filter", 0),
            (f"{link6}.forwarding", 0),
            (f"{link6}.accept_redirects", 1),
            (f"{link6}.accept_ra", 2),
            (f"{link6}.autoconf", 1),
            (f"{link6}.addr_gen_mode", 0),
            (f"{link6}.disable_ipv6", 1),
        )
    ]


DAMAGES = (*_links(), *_routes(), *_neighbours(), *_rules(), *_sysctls())

FOREIGN_RULES = """
table inet foreign {
  counter c1 {
  }
  quota q1 { over 100 mbytes
  }
  set ports { type inet_service; flags interval; auto-merge; elements = { 1-100, 200-65535 }
  }
  set seen { type ipv4_addr . ether_addr; size 100; flags dynamic,timeout; timeout 5m
  }
  set odd { typeof ct mark; elements = { 7 }
  }
  map counted { type ipv4_addr : counter; elements = { 9.9.9.9 : "c1" }
  }
  chain forward { type filter hook forward priority -10;
    counter name ip saddr map @counted
    tcp flags syn / syn,ack limit rate 10/second burst 3 packets accept
    numgen random mod 3 0 counter
    ct mark set 0x4
    ip saddr 9.9.9.9 update @seen { ip saddr . ether saddr }
  }
}
table ip weft {
  set guard4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }
  }
  chain forward { type filter hook forward priority 0;
    ip saddr @guard4 counter accept
  }
}
table bridge theirs {
  chain from-pods { type filter hook prerouting priority 0;
    ether type vlan drop
  }
}
"""

FOREIGN = """
ip link add foreign0 address 02:00:00:00:00:0f type bridge forward_delay 0 ageing_time 8640000
ip link set foreign0 addrgenmode none
ip link set foreign0 up alias theirs
ip link property add dev foreign0 altname wfforeign
ip link add wf0 type veth peer name wf1
ip link set wf0 addrgenmode none
ip link set wf1 addrgenmode none
ip link set wf1 up
ip link set wf0 master foreign0 up
sleep 0.2
ip addr add 192.0.2.1/24 dev foreign0
ip nexthop add id 7 via 198.51.100.1 dev eth0
ip nexthop add id 8 blackhole
ip nexthop add id 9 group 7
ip route add 203.0.113.0/25 nhid 9
ip route add 203.0.113.128/25 nhid 8
ip route add 198.18.0.0/24 nexthop via 198.51.100.1 dev eth0 nexthop via 192.0.2.2 dev foreign0
ip route add 198.18.1.0/24 via 198.51.100.1 mtu lock 1300 advmss 1200 quickack 1 proto bird
ip route add 198.18.2.1/32 dev eth0 proto 119 table 77
ip route add blackhole 198.18.3.1/32
ip -6 route add 2001:db8:99::/64 via 2001:db8:51::1 dev eth0 metric 7 pref high
ip -6 route add 2001:db8:98::1/128 encap ip6 dst 2001:db8::1 dev eth0 || true
ip rule add to 198.18.0.0/15 lookup 77 priority 777
ip -6 rule add from 2001:db8:99::/64 lookup 77 priority 778
ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev foreign0 nud permanent
ip neigh add proxy 192.0.2.10 dev foreign0
bridge fdb add 02:00:00:00:00:0a dev wf0 master static 2>/dev/null || true
tc qdisc add dev foreign0 clsact
sysctl -qw net.ipv4.conf.foreign0.forwarding=0
"""
