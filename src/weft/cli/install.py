"""`weft install` and `weft uninstall`: have the runtimes of this machine call weft, and take it
back. What is done and in which order: `cni.placing`; what runtimes read: `cni.runtimes`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from weft.cli.client import Client
from weft.cli.columns import coloured, plain
from weft.cli.machine import Machine
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, complain, echo
from weft.model.attachment import read_alias
from weft.model.errors import Conflict, Invalid, NotReady, WeftError

if TYPE_CHECKING:
    from weft.cni.installed import Installed, Record
    from weft.cni.placing import Installation, Judged, Plan, Step

LINKS = Path("/sys/class/net")
Outcome = Literal["installed", "unchanged", "planned", "waiting", "shadowed", "removed", "left"]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        metavar="DIR",
        help="The root of another system, e.g. of an image that is being built. No agent is "
        "asked then.",
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Set configurations aside that runtimes would take instead of weft's; "
        "`weft uninstall` puts them back.",
    ),
]
BinDirs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="A further directory for the launcher. May be repeated.",
        show_default=False,
    ),
]
ConfDirs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="A further directory for the network. May be repeated.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report. `good`: runtimes call weft, or, after `uninstall`, nothing is left."""

    outcome: Outcome
    good: bool
    runtimes: tuple[Any, ...] = ()
    steps: tuple[Any, ...] = ()
    message: str = ""
    notes: tuple[str, ...] = ()


def install(
    take_over: TakeOver = False,
    dry_run: DryRun = False,
    root: Root = Path("/"),
    bin_dir: BinDirs = None,
    conf_dir: ConfDirs = None,
    output: Report = None,
) -> None:
    """Have the container runtimes of this machine call weft.

    Reads the settings of containerd, CRI-O, podman, k3s and RKE2, puts the launcher where they
    look for plugins and, when the agent serves, the network where they look for networks. Exit
    status 1 while a runtime would take another configuration, which is then named.

    \b
    Examples:
      weft install --dry-run
      weft install
      weft install --take-over
      weft install --root /mnt/image
    """
    from weft.cni import placing, runtimes
    from weft.cni.placing import Installation

    _require(root, dry_run)
    tree = Machine(root)
    record = _record(tree)
    with record.held(make=not dry_run):
        found = runtimes.find(tree)
        _check(found)
        todo = placing.plan(
            tree,
            found,
            plugins=_absolute(bin_dir, "--bin-dir"),
            networks=_absolute(conf_dir, "--conf-dir"),
            take_over=take_over,
        )
        work = Installation(tree, record)
        answer = _planned(todo) if dry_run else _carried_out(work, todo, root)
    if _is_live(root):
        answer = msgspec.structs.replace(answer, notes=_before_us())
    _show(answer, output)
    if not answer.good:
        raise typer.Exit(1)


def uninstall(
    ctx: typer.Context,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also while containers are attached, or others' networks call weft."
        ),
    ] = False,
    dry_run: DryRun = False,
    root: Root = Path("/"),
    output: Report = None,
) -> None:
    """Take back what `weft install` has done.

    Configurations that were set aside are put back; then weft's network and launchers go. The
    agent and its state stay: docs/install.md says how to remove them.

    \b
    Examples:
      weft uninstall
      weft uninstall --force
    """
    from weft.cni.placing import Installation

    _require(root, dry_run)
    tree = Machine(root)
    record = _record(tree)
    with record.held(make=False):
        done = record.read()
        work = Installation(tree, record)
        if done is None:
            answer = _nothing(work)
            if not dry_run:
                record.end()  # of an `install` that was killed before it was on record
        else:
            if not force:
                attached = _attached(client_of(ctx)) if _is_live(root) else []
                _check_unused(work.callers(done), attached)
            answer = _planned_back(done) if dry_run else _taken_back(work, done)
    _show(answer, output)
    if not answer.good:
        raise typer.Exit(1)


def _before_us() -> tuple[str, ...]:
    """What to say of containers that other plugins attached."""
    from weft.cni import former

    number = former.count(former.Places())
    if not number:
        return ()
    return (
        f"{former.ROOT} has about {number} containers that other plugins attached: `weft import` "
        "keeps their addresses and ports theirs, and has them released on their DEL",
    )


def _nothing(work: Installation) -> Answer:
    from weft.cni.installed import Installed

    others = work.others(Installed())
    text = "no `weft install` is on record"
    if others:
        text += f"; {', '.join(others)} came by other means, and can be removed by hand"
    return Answer(outcome="unchanged", good=True, message=text)


def _planned_back(done: Installed) -> Answer:
    return Answer(outcome="planned", good=True, steps=_as_steps(done))


def _taken_back(work: Installation, done: Installed) -> Answer:
    work.take_back(done)
    left = [each.text for each in work.steps if each.state == "left"]
    others = work.others(done)
    if others:
        left.append(f"{', '.join(others)}: there before `weft install`, and left")
    bad = any(each.state == "left" for each in work.steps)
    return Answer(
        outcome="left" if bad else "removed",
        good=not bad,
        steps=tuple(work.steps),
        message="; ".join(left),
    )


def _require(root: Path, dry_run: bool) -> None:
    if not root.is_dir():
        raise Invalid(f"--root {root} is no directory", field="--root")
    if not dry_run and os.geteuid() != 0:
        raise WeftError("this changes files of root's", reason="not-permitted")


def _is_live(root: Path) -> bool:
    return root.resolve() == Path("/")


def _record(tree: Machine) -> Record:
    from weft.cni.installed import STATE, Record
    from weft.cni.placing import resolved

    return Record(tree.at(resolved(tree, STATE)))


def _absolute(directories: list[str] | None, option: str) -> list[str]:
    for each in directories or ():
        if not each.startswith("/") or ".." in each.split("/"):
            raise Invalid(f"{option} {each}: must be an absolute path without ..", field=option)
    return [each.rstrip("/") or "/" for each in directories or ()]


def _check(found: list[Any]) -> None:
    """Where a runtime looks must be known: Conflict names the settings that do not say."""
    problems = [f"{each.name}: {each.problem}" for each in found if each.problem]
    if problems:
        raise Conflict(
            "nothing was changed, for nobody can tell where a runtime looks: "
            + "; ".join(problems),
            reason="install-refused",
        )


def _carried_out(work: Installation, todo: Plan, root: Path) -> Answer:
    from weft.cni import asking, placing

    tree = Machine(root)
    changes = todo.changes
    work.begin(todo)
    refusal = asking.refusal(tree.at(todo.launchers[0])) if _is_live(root) else ""
    found = [each.runtime for each in todo.verdict]
    if refusal:
        work.wait(todo)
        return Answer(
            outcome="waiting",
            good=False,
            runtimes=placing.judge(tree, found),
            steps=tuple(work.steps),
            message="the network is not written, for the agent would refuse containers: "
            f"{refusal}; see `weft status`, start the agent if none runs, and run it again",
        )
    work.finish(todo)
    verdict = placing.judge(tree, found)
    message = _shadowed(verdict)
    outcome: Outcome = "shadowed" if message else "installed" if changes else "unchanged"
    return Answer(
        outcome=outcome,
        good=not message,
        runtimes=verdict,
        steps=tuple(work.steps),
        message=message or _nobody(verdict),
    )


def _planned(todo: Plan) -> Answer:
    steps = _as_steps(todo, todo.present)
    message = _shadowed(todo.verdict)
    outcome: Outcome = "shadowed" if message else "planned" if todo.changes else "unchanged"
    return Answer(
        outcome=outcome,
        good=not message,
        runtimes=todo.verdict,
        steps=steps,
        message=message or _nobody(todo.verdict),
    )


def _shadowed(verdict: tuple[Judged, ...]) -> str:
    """Which runtimes do not take weft's network, and what helps; empty where all do."""
    bad = [each for each in verdict if each.choice.why]
    if not bad:
        return ""
    lines = [f"{each.runtime.name} will not call weft: {each.choice.why}" for each in bad]
    files = dict.fromkeys(
        f"{each.runtime.networks}/{file}" for each in bad for file in each.choice.shadows
    )
    if files:
        lines.append(f"`weft install --take-over` sets aside {', '.join(files)}")
    return "; ".join(lines)


def _nobody(verdict: tuple[Judged, ...]) -> str:
    return "" if verdict else "no runtime's settings were found, so this is where most of them look"


def _as_steps(things: Plan | Installed, present: frozenset[str] = frozenset()) -> tuple[Step, ...]:
    from weft.cni.placing import Kind, Step

    every: list[tuple[Kind, str, str]] = [("launcher", each, each) for each in things.launchers]
    every += [("network", each, each) for each in things.networks]
    every += [("aside", each.path, f"{each.path}, {each.kept}") for each in things.aside]
    return tuple(
        Step(kind=kind, path=path, state="unchanged" if path in present else "planned", text=text)
        for kind, path, text in every
    )


def _check_unused(callers: list[str], attached: list[str]) -> None:
    why = []
    if attached:
        shown = ", ".join(attached[:5]) + (", ..." if len(attached) > 5 else "")
        why.append(f"containers are attached ({len(attached)}): {shown}; remove them")
    if callers:
        why.append(f"{', '.join(callers)} would still call weft; remove what calls it")
    if why:
        raise Conflict(
            f"nothing was changed: {'; '.join(why)}, or use --force", reason="install-refused"
        )


def _attached(client: Client) -> list[str]:
    """Who is attached: as the agent says, or, where none answers, as the kernel does."""
    from weft.wire.api import ListParams

    try:
        found = client.call("list", ListParams(kind="attachment"))
        # whom other plugins attached, who attached before uses again
        ours = [each for each in found.items if each["status"]["state"] != "imported"]
        return [str(each["metadata"]["name"]) for each in ours]
    except NotReady:
        return _attached_links()


def _attached_links() -> list[str]:
    names = []
    for link in sorted(LINKS.iterdir()):
        try:
            record = read_alias((link / "ifalias").read_text().rstrip("\n"))
        except OSError:  # just gone, or `bonding_masters`
            continue
        if record is not None:
            names.append(str(record.key))
    return names


def _show(answer: Answer, output: Any) -> None:
    if output is not None:
        echo(as_text(answer, output))
        return
    say = echo if answer.good else complain
    verb = "would take" if answer.outcome in ("planned", "waiting") else "takes"
    for each in answer.runtimes:
        _show_runtime(each, verb, say)
    for step in answer.steps:
        word = coloured(step.state, "bad" if step.state in ("waiting", "left") else "ok")
        say(f"{step.kind:<9} {word}: {plain(step.text)}")
    words = {
        "installed": "runtimes call weft",
        "unchanged": "nothing to do",
        "planned": "nothing was changed",
        "removed": "what `weft install` made is gone, what it set aside is back",
    }
    closing = words.get(answer.outcome, "")
    say(plain("; ".join(each for each in (closing, answer.message) if each)))
    for note in answer.notes:
        say(plain(note))


def _show_runtime(each: Judged, verb: str, say: Any) -> None:
    runtime, choice = each.runtime, each.choice
    mark = coloured("no", "bad") if choice.why else coloured("ok", "ok")
    takes = ", ".join(choice.taken) or "nothing"
    said = ", ".join(runtime.settings) or "its defaults"
    say(f"{mark}  {plain(runtime.name)} {verb} {plain(takes)} of {plain(runtime.networks)}")
    say(f"    plugins from {plain(', '.join(runtime.plugins))}; read in {plain(said)}")
    for note in (*runtime.notes, *choice.notes):
        say(f"    {plain(note)}")
