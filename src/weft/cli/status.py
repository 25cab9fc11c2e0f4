"""`weft status`: the node at a glance."""

from __future__ import annotations

import time

import typer

from weft.cli.columns import coloured, plain, span, table
from weft.cli.ipam import pools_table
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, echo
from weft.wire.api import Nothing
from weft.wire.status import Family, Start, Status, WayOut

LABEL = 14  # width of the column of names


def status(ctx: typer.Context, output: Report = None) -> None:
    """Show whether this node can attach containers.

    Exit status 0 when it is ready, 1 when it is not. What stands in the way is named, with a
    reason that `weft explain` knows.

    \b
    Examples:
      weft status
      weft status -o json
    """
    found = client_of(ctx).call("status", Nothing())
    echo(as_text(found, output) if output is not None else status_text(found))
    if not found.ready:
        raise typer.Exit(1)


def status_text(found: Status, now: float | None = None) -> str:
    """The whole report for a person."""
    word = coloured("ready", "ok") if found.ready else coloured("not ready", "bad")
    lines = [_line("Node", f"{plain(found.node)}, {word}")]
    lines += [_line("", f"{plain(each.message)} ({each.reason})") for each in found.reasons]
    since = (time.time() if now is None else now) - found.started
    up = f", up {span(since)}" if found.started else ""
    kernel = f", kernel {plain(found.kernel)}" if found.kernel else ""
    lines.append(_line("Agent", f"weft {plain(found.version)}{up}{kernel}"))
    if found.start.seconds:
        lines.append(_line("Start", _start(found.start)))
    lines.append(_line("Families", _families(found)))
    lines.append(_line("Way out", _ways_out(found)))
    source = f" ({plain(found.mtu.source)})" if found.mtu.source else ""
    lines.append(_line("MTU", f"{found.mtu.value or 'not known yet'}{source}"))
    lines.append(_line("Attachments", _counts(found.attachments)))
    lines.append(_line("Drops", _counts(found.drops)))
    lines += _calls(found)
    lines += [
        _line("Lacking" if not index else "", _lacking(each.name, each.why))
        for index, each in enumerate(each for each in found.capabilities if not each.present)
    ]
    lines += [
        _line("By other ways" if not index else "", f"{plain(each.name)}: {plain(each.way)}")
        for index, each in enumerate(each for each in found.capabilities if each.way)
    ]
    lines += [
        _line("Files" if not index else "", f"{each.name} {each.path} (format {each.format})")
        for index, each in enumerate(each for each in found.formats if each.path)
    ]
    lines += _watched(found)
    lines += [
        _line("Warnings" if not index else "", coloured(plain(each.message), "warn"))
        for index, each in enumerate(found.warnings)
    ]
    pools = pools_table(found.pools) if found.pools else "No pools."
    return "\n".join([*lines, "", pools])


def _line(name: str, text: str) -> str:
    heading = f"{name}:" if name else ""
    return f"{heading:<{LABEL}}{text}"


def _start(found: Start) -> str:
    return (
        f"ready after {found.seconds:.2f} s; {found.standing} rows stand, {found.written} of them "
        "were sent again"
    )


def _families(found: Status) -> str:
    return "; ".join(
        _family(name, family)
        for name, family in (("IPv4", found.families.ipv4), ("IPv6", found.families.ipv6))
    )


def _family(name: str, family: Family) -> str:
    if family.enabled:
        return name
    return f"no {name}" + (f" ({plain(family.why)})" if family.why else "")


def _ways_out(found: Status) -> str:
    return "; ".join(
        _way_out(name, way)
        for name, way in (("IPv4", found.ways_out.ipv4), ("IPv6", found.ways_out.ipv6))
    )


def _way_out(name: str, way: WayOut) -> str:
    if not way.present:
        return f"no {name}" + (f" ({plain(way.why)})" if way.why else "")
    link = f" by {plain(way.link)}" if way.link else ""
    return f"{name}{link}" + (f" via {plain(way.gateway)}" if way.gateway else "")


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{count} {plain(name)}" for name, count in counts.items() if count]
    return ", ".join(shown) or "none"


def _calls(found: Status) -> list[str]:
    """Calls of runtimes, one line a verb: `12 ok, 1 exhausted`."""
    verbs = dict.fromkeys(each.verb for each in found.sessions)
    if not verbs:
        return [_line("Calls", "none")]
    rows = [
        [
            verb,
            _counts({each.result: each.count for each in found.sessions if each.verb == verb}),
        ]
        for verb in verbs
    ]
    lines = table(["", ""], rows, header=False).splitlines()
    return [_line("Calls" if not index else "", line) for index, line in enumerate(lines)]


def _watched(found: Status) -> list[str]:
    """Where metrics are, and who notices a stuck agent; an older agent says neither."""
    limit, supervisor = found.watchdog.limit, found.watchdog.supervisor
    if not limit:
        return []
    metrics = plain(found.metrics.address) or ("none" if found.metrics.problem else "off")
    other = f"its supervisor's {supervisor:g} s" if supervisor else "no supervisor watches it"
    return [_line("Metrics", metrics), _line("Watchdog", f"{limit:g} s; {other}")]


def _lacking(name: str, why: str) -> str:
    return plain(name) + (f": {plain(why)}" if why else "")
