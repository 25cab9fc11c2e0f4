"""The command: say what will go and what that means, refuse beside an agent, then do it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import typer

from weft.cli.break_glass import keepers, rules
from weft.cli.break_glass.keepers import Keepers
from weft.cli.break_glass.rules import Standing
from weft.cli.client import SOCKET
from weft.cli.columns import plain
from weft.cli.options import Report
from weft.cli.output import as_text, complain, echo
from weft.model.errors import Invalid, WeftError

Outcome = Literal["planned", "removed", "nothing"]
_DISABLE = "systemctl disable"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report. `links`: those of pods; `shut`: those of them that were set down."""

    outcome: Outcome
    tables: tuple[Standing, ...]
    processes: tuple[keepers.Process, ...]
    units: tuple[keepers.Unit, ...]
    links: tuple[str, ...]
    shut: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What stands, and who keeps it there."""

    tables: tuple[Standing, ...]
    keepers: Keepers
    links: tuple[str, ...]


@app.command()
def break_glass(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="End the agent first, with what starts it again, and whoever owns the tables.",
        ),
    ] = False,
    close_pods: Annotated[
        bool,
        typer.Option(
            "--close-pods",
            help="Before the rules go, set all pods' links down: no network rather than an "
            "unguarded one.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Report = None,
) -> None:
    """Take weft's packet rules away in an emergency.

    Removes the nftables tables `inet weft`, `arp weft` and `bridge weft`, all or none, also where
    they are protected; everything else stays. Needs no agent, settings, journal or store. Refuses
    beside a living agent, which would put the rules back, unless --force ends it.

    Pods stay attached, but unguarded: they can send under any address, and their way out is not
    translated any more. An agent that starts puts all rules back.

    \b
    Examples:
      weft break-glass --dry-run                   what would go, and who stands in the way
      systemctl stop weft.socket weft.service; weft break-glass
      weft break-glass --force --yes               also beside a stuck agent
      weft break-glass --force --close-pods        and leave no pod unguarded
    """
    if os.geteuid() != 0:
        raise WeftError("packet rules are root's to remove", reason="not-permitted")
    scene = look()
    if output is None:
        _describe(scene, force=force, close_pods=close_pods)
    if dry_run:
        _show(_answer("planned" if _is_work(scene, close_pods) else "nothing", scene), output)
        return
    if scene.keepers.living and not force:
        raise WeftError(refusal(scene.keepers), reason="agent-alive")
    if not _is_work(scene, close_pods) and not scene.keepers.living:
        _show(_answer("nothing", scene), output)
        return
    if not yes:
        _confirm()
    _show(perform(scene, close_pods=close_pods), output)


def perform(scene: Scene, *, close_pods: bool) -> Answer:
    """End everybody, shut pods' links if that is asked for, remove the rules. Every step may be the
    last one and may be repeated. Raises WeftError."""
    done = _end(scene.keepers)
    shut = rules.shut_links() if close_pods else ()
    rules.remove()
    after = look()
    if after.tables:
        raise WeftError(
            "the rules were removed and somebody has put them back; "
            + (refusal(after.keepers) if after.keepers.living else "find out who: `nft monitor`"),
            reason="agent-alive",
        )
    outcome: Outcome = "removed" if scene.tables or shut else "nothing"
    return _answer(outcome, scene, shut=shut, done=done)


def look() -> Scene:
    """Everything there is to know. Raises KernelRefused."""
    tables = rules.standing()
    owners = {table.holder for table in tables if table.holder}
    return Scene(tables=tables, keepers=keepers.look(owners), links=rules.pod_links())


def _is_work(scene: Scene, close_pods: bool) -> bool:
    return bool(scene.tables or (close_pods and scene.links))


def _end(found: Keepers) -> tuple[str, ...]:
    """End everybody, also who was started meanwhile. Raises WeftError where somebody is left."""
    done: list[str] = []
    for _ in range(keepers.ROUNDS):
        if not found.living:
            return tuple(done)
        done += keepers.end(found)
        owners = {table.holder for table in rules.standing() if table.holder}
        found = keepers.look(owners)
    if found.living:
        raise WeftError(
            f"nothing was removed: {refusal(found)}",
            reason="agent-alive",
            details="\n".join(done),
        )
    return tuple(done)


def refusal(found: Keepers) -> str:
    """Who stands in the way, and what to type."""
    who = [f"{each.role} {each.pid}" for each in found.processes]
    who += [f"unit {name}" for name in found.running()]
    stop = "systemctl stop " + " ".join(n for n in keepers.RUNNING_UNITS if n in found.running())
    pids = " ".join(str(each.pid) for each in found.processes)
    orders = stop if any(found.running()) else f"kill {pids}"
    return (
        f"still alive, and would keep the rules or put them back: {', '.join(who)}; end them "
        f"(`{orders}`), or run this with --force"
    )


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise Invalid(
            "nobody can be asked here: say --yes, or --dry-run to only look",
            field="--yes",
            reason="invalid-argument",
        )
    if not typer.confirm("Remove them now?", default=False, err=True):
        raise WeftError("nothing was changed", reason="not-confirmed")


def _answer(
    outcome: Outcome, scene: Scene, *, shut: Sequence[str] = (), done: Sequence[str] = ()
) -> Answer:
    return Answer(
        outcome=outcome,
        tables=scene.tables,
        processes=scene.keepers.processes,
        units=scene.keepers.units,
        links=scene.links,
        shut=tuple(shut),
        done=tuple(done),
        warnings=tuple(_warnings(scene)),
    )


def _warnings(scene: Scene) -> list[str]:
    found = []
    if scene.keepers.unasked:
        found.append(f"systemd could not be asked: {scene.keepers.unasked}")
    if any(table.holder == 0 for table in scene.tables):
        found.append("a table is owned by a process that cannot be seen from here")
    if not scene.keepers.living and keepers.listened_to(SOCKET):
        found.append(
            f"somebody who cannot be seen from here listens on {SOCKET}: an agent would put "
            "the rules back; repeat this where its process can be seen"
        )
    if boot := scene.keepers.at_boot():
        found.append(f"started at boot, which loads rules again: {_DISABLE} {' '.join(boot)}")
    return found


def _describe(scene: Scene, *, force: bool, close_pods: bool) -> None:
    say = complain
    for table in scene.tables:
        holder = f", owned by process {table.holder}" if table.holder is not None else ""
        kept = "protected" if table.persists else "not protected"
        what = "contents that cannot be read"
        if table.contents is not None:
            kinds = zip(table.contents, ("chains", "rules", "sets", "elements"), strict=True)
            what = ", ".join(f"{count} {kind}" for count, kind in kinds)
        say(f"table {table.family} {table.name}: {what}; {kept}{holder}")
    if not scene.tables:
        say("no table of weft's")
    for process in scene.keepers.processes:
        going = "will be ended" if force else "stands in the way"
        say(f"{process.role} {process.pid}: {plain(process.command)}; {going}")
    for name in scene.keepers.running():
        say(f"unit {name}: active; {'will be stopped' if force else 'stands in the way'}")
    if scene.links:
        fate = "will be set down" if close_pods else "keep their links, without guards"
        say(f"{len(scene.links)} attachments of pods: {fate}")


def _show(answer: Answer, output: object) -> None:
    if output is not None:
        echo(as_text(answer, str(output)))
        return
    for line in answer.done:
        echo(line)
    if answer.shut:
        echo(f"set down: {len(answer.shut)} links of pods")
    for line in answer.warnings:
        complain(f"warning: {line}")
    echo(
        {
            "planned": "nothing was changed",
            "nothing": "there was nothing to remove",
            "removed": "removed; forwarding is the administrator's. An agent that starts puts all "
            "rules back",
        }[answer.outcome]
    )
