"""Which features a kernel has, judged from what it tells of itself: nothing is loaded or tried.

A feature counts as there when a symbol that only it has is in /proc/kallsyms, or its module is
listed in /lib/modules. What only some requests need is in a table of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Features = Mapping[str, tuple[str, str]]
"""Feature: a kernel symbol that only it has, and the module that may bring it."""

NEEDED: Features = {
    "veth": ("veth_newlink", "veth"),
    "nftables": ("nf_tables_newrule", "nf_tables"),
    "nftables, inet family": ("nft_do_chain_inet", "nf_tables"),
    "nftables, arp family": ("nft_do_chain_arp", "nf_tables"),
    "network address translation in nftables": ("nft_nat_do_chain", "nft_chain_nat"),
    "connection tracking": ("nf_conntrack_in", "nf_conntrack"),
}
BRIDGED: Features = {
    "bridge (CONFIG_BRIDGE)": ("br_handle_frame", "bridge"),
    "nftables, bridge family (CONFIG_NF_TABLES_BRIDGE)": ("nft_do_chain_bridge", "nf_tables"),
}
BANDWIDTH: Features = {
    "ifb (CONFIG_IFB)": ("ifb_xmit", "ifb"),
    "tbf (CONFIG_NET_SCH_TBF)": ("tbf_init", "sch_tbf"),
    "clsact (CONFIG_NET_SCH_INGRESS)": ("clsact_init", "sch_ingress"),
    "u32 (CONFIG_NET_CLS_U32)": ("u32_classify", "cls_u32"),
    "mirred (CONFIG_NET_ACT_MIRRED)": ("tcf_mirred_act", "act_mirred"),
}
EGRESS: Features = {
    "ranges of concatenations (NFT_PIPAPO)": ("nft_pipapo_lookup", "nf_tables"),
    "reject (CONFIG_NFT_REJECT_INET)": ("nft_reject_inet_eval", "nft_reject_inet"),
    "log (CONFIG_NFT_LOG)": ("nft_log_eval", "nft_log"),
    "limit (CONFIG_NFT_LIMIT)": ("nft_limit_pkts_eval", "nft_limit"),
}


def missing(features: Features, symbols: str, modules: str) -> list[str]:
    """Those that are in neither text: /proc/kallsyms, and modules.dep with modules.builtin."""
    return [
        name
        for name, (symbol, module) in features.items()
        if f" {symbol}\n" not in symbols
        and f" {symbol}\t" not in symbols
        and not re.search(rf"/{module}\.ko", modules)
    ]
