"""What the agent contributes to `weft doctor`: its status, read as findings.

Pure. The command line adds what it can see without an agent (`cli.doctor`); the levels mean: ok,
warn (works, but not as it could), bad (pods will not get a working network).
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.firewalls.report import findings as firewall_findings
from weft.model.reasons import REASONS
from weft.wire.api import Finding, IpamCheck
from weft.wire.status import Family, Status, Why

NEARLY_FULL = 0.9
NO_WAY_OUT = "the host has no default route; pods reach each other only"


def findings_of(status: Status, audit: IpamCheck) -> tuple[Finding, ...]:
    """One finding at least for each subject, in the order in which a person should read them."""
    return (
        *_readiness(status),
        *(_why("warning", "warn", each) for each in status.warnings if not each.mend),
        *firewall_findings(status.firewalls),
        *_families(status),
        *_capabilities(status),
        *_pools(status),
        *_watched(status),
        *_audit(audit),
    )


def _readiness(status: Status) -> Iterator[Finding]:
    if status.ready:
        yield Finding(id="agent-ready", level="ok", text=f"node {status.node} is ready")
    for each in status.reasons:
        yield _why("agent-ready", "bad", each)
    if not status.ready and not status.reasons:
        yield Finding(
            id="agent-ready", level="bad", text="the agent is not ready", mend="weft status"
        )


def _why(finding: str, level: str, why: Why) -> Finding:
    known = REASONS.get(why.reason)
    return Finding(
        id=finding,
        level="bad" if level == "bad" else "warn",
        text=why.message,
        mend=f"weft explain {why.reason}" if known is not None else "",
    )


def _families(status: Status) -> Iterator[Finding]:
    families = (
        ("IPv4", status.families.ipv4, status.ways_out.ipv4),
        ("IPv6", status.families.ipv6, status.ways_out.ipv6),
    )
    for name, family, way in families:
        yield _family(name, family)
        if family.enabled and not way.present:
            yield Finding(
                id="way-out",
                level="warn",
                text=f"no {name} way out: {way.why or NO_WAY_OUT}",
            )


def _family(name: str, family: Family) -> Finding:
    if family.enabled:
        return Finding(id="family", level="ok", text=f"pods get {name}")
    return Finding(
        id="family", level="warn", text=f"pods get no {name}: {family.why or 'switched off'}"
    )


def _capabilities(status: Status) -> Iterator[Finding]:
    missing = [each for each in status.capabilities if not each.present]
    for each in missing:
        why = f": {each.why}" if each.why else ""
        yield Finding(
            id="kernel", level="warn", text=f"not to be had on this node: {each.name}{why}"
        )
    if status.capabilities and not missing:
        yield Finding(
            id="kernel",
            level="ok",
            text=f"kernel {status.kernel} has all {len(status.capabilities)} features asked for",
        )


def _pools(status: Status) -> Iterator[Finding]:
    usable = [pool for pool in status.pools if not pool.disabled]
    if not usable:
        yield Finding(
            id="pools",
            level="bad",
            text="there is no pool to give addresses from",
            mend="weft apply -f POOL.yaml",
        )
    for pool in usable:
        if pool.size and pool.used + pool.cooling >= NEARLY_FULL * pool.size:
            yield Finding(
                id="pools",
                level="warn",
                text=f"pool {pool.name}: {pool.used} of {pool.size} addresses in use, "
                f"{pool.cooling} cooling",
                mend="add an IPPool: weft apply -f POOL.yaml",
            )
        else:
            yield Finding(id="pools", level="ok", text=f"pool {pool.name} has room")


def _watched(status: Status) -> Iterator[Finding]:
    if not status.watchdog.limit:
        return  # an older agent, which says nothing of it
    if status.watchdog.supervisor:
        yield Finding(id="watchdog", level="ok", text="a stuck agent is noticed and started again")
    else:
        yield Finding(
            id="watchdog",
            level="warn",
            text="no supervisor watches this agent: when it ends or is stopped, nobody starts it "
            "again",
            mend="run it by weft.service, or by deploy/weft-supervise",
        )


def _audit(audit: IpamCheck) -> Iterator[Finding]:
    for problem in audit.problems:
        yield Finding(id="addresses", level="warn", text=problem.text, mend=problem.mend)
    if not audit.problems:
        yield Finding(
            id="addresses",
            level="ok",
            text=f"{audit.addresses} addresses agree with {audit.attachments} attachments",
        )
