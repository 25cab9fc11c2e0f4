"""The kernel's numbers for the words in expressions (include/uapi/linux/netfilter/nf_tables.h)."""

from __future__ import annotations

META: dict[str, int] = {
    "len": 0,
    "protocol": 1,
    "priority": 2,
    "mark": 3,
    "iif": 4,
    "oif": 5,
    "iifname": 6,
    "oifname": 7,
    "iiftype": 8,
    "oiftype": 9,
    "skuid": 10,
    "skgid": 11,
    "nftrace": 12,
    "nfproto": 15,
    "l4proto": 16,
    "bri_iifname": 17,
    "bri_oifname": 18,
    "pkttype": 19,
    "cpu": 20,
    "iifgroup": 21,
    "oifgroup": 22,
    "cgroup": 23,
    "secpath": 25,
    "iifkind": 26,
    "oifkind": 27,
    "sdif": 33,
    "sdifname": 34,
}

BASES: dict[str, int] = {"link": 0, "network": 1, "transport": 2}

COMPARISONS: dict[str, int] = {"==": 0, "!=": 1, "<": 2, "<=": 3, ">": 4, ">=": 5}

CONNTRACK: dict[str, int] = {
    "state": 0,
    "direction": 1,
    "status": 2,
    "mark": 3,
    "expiration": 5,
    "zone": 16,
}

FIB_RESULTS: dict[str, int] = {"oif": 1, "oifname": 2, "type": 3}

FIB_FLAGS: dict[str, int] = {
    "saddr": 1,
    "daddr": 2,
    "mark": 4,
    "iif": 8,
    "oif": 16,
    "present": 32,
}

VERDICTS: dict[str, int] = {
    "drop": 0,
    "accept": 1,
    "continue": -1,
    "jump": -3,
    "goto": -4,
    "return": -5,
}
VERDICT_WORDS = {code: word for word, code in VERDICTS.items()}
LEADING = frozenset(("jump", "goto"))
"""Verdicts that name a chain."""
