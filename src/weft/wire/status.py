"""What the agent says about itself and its node: the answer to `weft status`.

Apart from the method table because the agent fills it, the command line prints it and the lab
reads it. Every field has a default that means "not known" or "none", so that a reader and an
agent one release apart understand each other. Methods: `api.py`.
"""

from __future__ import annotations

import msgspec

LARGEST = 2**63 - 1
"""Counts of addresses stop here, because JSON readers do; a larger pool says this number."""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of what the agent reports: camelCase outside, unknown fields ignored by readers."""


class Why(Report, frozen=True, kw_only=True):
    """Something that stands in the way of `ready`, or a warning; `reason` is in the catalogue.
    `mend`: commands, where some would mend it."""

    reason: str
    message: str
    mend: str = ""


class Family(Report, frozen=True, kw_only=True):
    """One address family: whether pods get it, and the reason where they do not."""

    enabled: bool
    why: str = ""


class WayOut(Report, frozen=True, kw_only=True):
    """Whether the host has a default route of a family, by which link; `why` where it has none."""

    present: bool
    link: str = ""
    gateway: str = ""
    why: str = ""


class Families(Report, frozen=True, kw_only=True):
    """Both families."""

    ipv4: Family = Family(enabled=False)
    ipv6: Family = Family(enabled=False)


class WaysOut(Report, frozen=True, kw_only=True):
    """Both ways out."""

    ipv4: WayOut = WayOut(present=False)
    ipv6: WayOut = WayOut(present=False)


class Mtu(Report, frozen=True, kw_only=True):
    """MTU of pods' interfaces and where it comes from, e.g. `link eth0` or `settings`."""

    value: int = 0
    source: str = ""


class PoolUse(Report, frozen=True, kw_only=True):
    """One pool as this node sees it. Counts are of addresses, at most LARGEST."""

    name: str
    cidr: str
    size: int = 0
    used: int = 0
    cooling: int = 0
    free: int = 0
    blocks: int = 0  # held by this node
    disabled: bool = False


class Format(Report, frozen=True, kw_only=True):
    """A file or protocol and the version of its format: journal, store, api, alias."""

    name: str
    format: int
    path: str = ""


class Capability(Report, frozen=True, kw_only=True):
    """Something that kernels may lack; `why` where it is missing and what follows from that; `way`
    how it is done where there are several."""

    name: str
    present: bool
    why: str = ""
    way: str = ""


class Listener(Report, frozen=True, kw_only=True):
    """Where metrics and health are to be had: `ADDRESS:PORT` or `unix:/PATH`. Both empty: they are
    switched off; `problem`: why they cannot be had."""

    address: str = ""
    problem: str = ""


class Watch(Report, frozen=True, kw_only=True):
    """Who notices a stuck agent. Seconds of silence until the agent ends itself, and until its
    supervisor ends it; 0: nobody does."""

    limit: float = 0.0
    supervisor: float = 0.0


class Start(Report, frozen=True, kw_only=True):
    """What it took to start: `seconds` from the process's begin to its first request; rows that
    stand on the host after it, and how many of them had to be sent to the kernel again."""

    seconds: float = 0.0
    standing: int = 0
    written: int = 0


class ForeignFirewall(Report, frozen=True, kw_only=True):
    """A chain of another packet filter that pods' packets pass. `drops` and `unclear` are names of
    flows (`weft.firewalls.flows`): which it drops for certain, and of which nobody can tell.
    `breaks`: among the dropped are some that no pod can do without."""

    chain: str  # e.g. `chain ip filter FORWARD`
    hook: str
    owners: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    breaks: bool = False
    message: str = ""
    mend: str = ""


class Sessions(Report, frozen=True, kw_only=True):
    """How often a CNI verb ended with a result: `ok`, or a reason of the catalogue."""

    verb: str
    result: str
    count: int


class Status(Report, frozen=True, kw_only=True):
    """The whole answer. Not ready: `reasons` has at least one entry."""

    version: str
    node: str
    boot_id: str = ""
    kernel: str = ""
    ready: bool
    reasons: tuple[Why, ...] = ()
    warnings: tuple[Why, ...] = ()
    started: float = 0.0  # wall clock, seconds since 1970
    families: Families = Families()
    ways_out: WaysOut = WaysOut()
    mtu: Mtu = Mtu()
    pools: tuple[PoolUse, ...] = ()
    attachments: dict[str, int] = {}  # by state
    drops: dict[str, int] = {}  # packets by reason, since the ruleset was made
    sessions: tuple[Sessions, ...] = ()
    formats: tuple[Format, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    metrics: Listener = Listener()
    watchdog: Watch = Watch()
    start: Start = Start()
    firewalls: tuple[ForeignFirewall, ...] = ()
    settings: str = ""  # the file that the agent took its settings from; "": an older one's answer
