"""Somebody else's tables: one under our name is taken over, all others stay as they are.

What stands in a table of our name is replaced in the transaction that brings our rules, also sets
of another kind than ours; otherwise a node whose containers run would stay unguarded.
"""

from __future__ import annotations

import subprocess
from ipaddress import ip_network
from pathlib import Path

from namespace_fixture import on_a_node

from weft.agent.events import Log
from weft.agent.journal import Journal
from weft.agent.node import Node
from weft.drivers.engine import Engine
from weft.drivers.rules import RulesTransport
from weft.drivers.surroundings import Host
from weft.drivers.table import all_drivers
from weft.model.settings import RulesetSettings, Settings
from weft.render import guards

IN_OUR_NAME = """
table inet weft {
  counter c1 { packets 1 bytes 2
  }
  set guard4 { type ipv4_addr; flags dynamic,timeout; timeout 5m; elements = { 1.2.3.4, 1.2.3.5 }
  }
  set pools4 { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 }
  }
  set blocks4 { type inet_service; elements = { 80 }
  }
  set strangers { typeof meta mark; elements = { 7 }
  }
  map vm { type ipv4_addr : verdict; elements = { 1.1.1.1 : jump listed4 }
  }
  map cluster4 { type ipv4_addr : counter; elements = { 9.9.9.9 : "c1" }
  }
  chain listed4 { ip saddr @guard4 counter name "c1" accept
  }
  chain x {
    ip saddr . tcp dport @pools4 drop
    counter name ip saddr map @cluster4
    goto listed4
  }
  chain forward { type filter hook input priority 5; policy accept;
    ip saddr vmap @vm
    tcp dport @blocks4 accept
    jump x
  }
}
table arp weft {
  set strangers { type ipv4_addr; elements = { 1.1.1.1 }
  }
  chain from-pods { type filter hook output priority 5;
    arp saddr ip @strangers drop
  }
}
"""
OTHERS = """
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
table netdev weft {
  chain from-pods { type filter hook ingress device lo priority 0;
    ip saddr 1.2.3.4 drop
  }
}
table inet other {
  counter c1 { packets 1 bytes 2
  }
  quota q1 { over 100 mbytes used 0 bytes
  }
  limit l1 { rate 10/second
  }
  map ranges { type ipv4_addr . inet_service : ipv4_addr; flags interval;
    elements = { 10.0.0.0/8 . 80-90 : 1.2.3.4 }
  }
  set ports { type inet_service; flags interval; auto-merge; elements = { 1-100, 200-65535 }
  }
  set seen { type ipv4_addr . ether_addr; size 100; flags dynamic,timeout; timeout 5m
  }
  map counted { type ipv4_addr : counter; elements = { 9.9.9.9 : "c1" }
  }
  chain early { type filter hook ingress device lo priority 0; policy accept;
    ip daddr 5.5.5.5 drop
  }
  chain forward { type filter hook forward priority -10;
    counter name ip saddr map @counted
    quota name "q1" drop
    limit name "l1" accept
    tcp flags syn / syn,ack limit rate 10/second burst 3 packets accept
    numgen random mod 3 0 counter
    ct mark set 0x4
    ip dscp set cs1
    update @seen { ip saddr . ether saddr }
    log prefix "x"
    reject with icmpx type admin-prohibited
  }
}
"""


def nft(*words: str, rules: str = "") -> str:
    done = subprocess.run(["nft", *words], input=rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(directory: Path) -> RulesTransport:
    """What an agent does to the packet rules when it starts."""
    settings = Settings(ruleset=RulesetSettings(protected="never"))
    rules = RulesTransport()
    engine = Engine(Host(rules), all_drivers(rules))
    journal = Journal(directory / "journal", "boot")
    node = Node(settings, engine, rules, journal, Log("error"))
    node.program([ip_network("10.244.0.0/16")], [ip_network("10.244.7.0/26")])
    journal.close()
    pod = guards.elements("wf" + "a" * 13, bytes(6), [bytes((10, 244, 7, 1))], None, False)
    engine.apply("pod", pod)
    assert engine.drift() == {}
    return rules


@on_a_node
def test_what_stands_under_our_name_is_replaced_whatever_it_is(tmp_path: Path) -> None:
    with_us = {row.key: row for row in start(tmp_path).standing("weft")}
    nft("flush", "ruleset")
    nft("-f", "-", rules=IN_OUR_NAME)
    again = {row.key: row for row in start(tmp_path).standing("weft")}
    assert again == with_us


@on_a_node
def test_tables_of_other_names_and_families_stay_byte_for_byte(tmp_path: Path) -> None:
    nft("-f", "-", rules=OTHERS)
    before = nft("-n", "list", "ruleset")
    rules = start(tmp_path)
    assert nft("-n", "list", "ruleset") != before
    for family in ("inet", "arp", "bridge"):
        nft("delete", "table", family, "weft")
    assert nft("-n", "list", "ruleset") == before
    assert rules.standing("weft") == []
