"""`weft doctor --fix`: which commands may be run by machine, and running them, one by one.

`COMMANDS` is the whole list: what no line of it describes is for a person, however simple it looks.
No shell is involved. Each command is shown before it runs. What changes a thing of others -
another network's, another firewall's - is never run unless its owner was named: by a person's yes
to a question that names it, or on the command line. After each command everything is judged anew,
so that nothing is mended twice and nobody takes a command's exit status for a cure.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Literal, NamedTuple

import msgspec

from weft.cli.columns import coloured, plain
from weft.cli.output import complain, echo
from weft.engines import programs
from weft.model.errors import WeftError
from weft.wire.api import Finding
from weft.wire.status import Report

PATIENCE = 60.0  # seconds a command
OTHERS = "others"
"""Whose a thing is where a foreign command's finding does not say it."""
_ADDRESS = r"[0-9a-f.:]+(?:/\d+)?"
_WORD = r"[^\s;|&<>$`]+"


class Command(NamedTuple):
    """A form of command; `foreign`: it changes what belongs to others."""

    form: str
    foreign: bool = False


COMMANDS = (
    Command("systemctl start weft"),
    Command(rf"sysctl -w {_WORD}=\d+"),
    Command("timedatectl set-ntp true"),
    Command(rf"weft ipam release {_ADDRESS}"),
    Command("weft install"),
    Command("weft install --take-over", foreign=True),
    Command(rf"install -m 0755 {_WORD}/launcher {_WORD}/weft"),
    Command(rf"chmod [0-7]{{4}} {_WORD}"),
    Command(rf"chown root:root {_WORD}"),
    Command(rf"mv (?:{_WORD}|'[^']+') /root/", foreign=True),
    Command(rf"ip link (?:delete {_WORD}|set {_WORD} down)", foreign=True),
    Command(rf"nft delete table \S+ {_WORD}", foreign=True),
    Command(rf"nft insert rule (?:{_WORD} )+accept", foreign=True),
    Command(rf"(?:ip6?tables(?:-legacy)?|ebtables)(?: -t \w+)? -I (?:{_WORD} )+-j ACCEPT", True),
    Command(rf"ufw (?:route )?allow \w+ {_ADDRESS}", foreign=True),
    Command(rf"firewall-cmd --permanent --zone=trusted --add-source={_ADDRESS}", foreign=True),
    Command("firewall-cmd --reload", foreign=True),
)


class Attempt(Report, frozen=True, kw_only=True):
    """What became of one finding. `still`: the commands ran, and it is there all the same; `left`:
    it belongs to others, who were not named; `said`: why a command failed."""

    id: str
    text: str
    commands: tuple[str, ...]
    owner: str = ""
    result: Literal["mended", "still", "failed", "declined", "left"]
    said: str = ""


class Consent(NamedTuple):
    """To what the caller has agreed beforehand: to everything of ours and of the node's own
    (`yes`), and then to things of these owners, or findings of these ids. `ask`: whether to run it
    now."""

    yes: bool = False
    foreign: Collection[str] = ()
    ask: Callable[[str], bool] = lambda _: False


def planned(finding: Finding) -> Finding:
    """The finding with the steps by which a machine may mend it, if there are any."""
    if finding.level == "ok" or not finding.mend or finding.steps:
        return finding
    steps = []
    foreign = False
    for text in re.split(r"; | && ", finding.mend):
        command = next((each for each in COMMANDS if re.fullmatch(each.form, text)), None)
        if command is None:
            return finding
        foreign |= command.foreign
        words = shlex.split(text)
        if words[0] == "mv":
            words.insert(1, "-n")  # what lies at the goal under that name stays
        steps.append(tuple(words))
    owner = finding.owner or (OTHERS if foreign else "")
    return msgspec.structs.replace(finding, steps=tuple(steps), owner=owner)


def mend(
    judge: Callable[[], list[Finding]],
    consent: Consent,
    run: Callable[[tuple[str, ...]], object],
    tell: Callable[[str], None] = echo,
) -> tuple[list[Attempt], list[Finding]]:
    """Mend what can be mended, in the order of the findings; what was tried, and what is found in
    the end. `run` raises WeftError where a command fails."""
    found = judge()
    tried: set[tuple[tuple[str, ...], ...]] = set()
    attempts: list[Attempt] = []
    while (finding := _next(found, tried)) is not None:
        tried.add(finding.steps)
        attempt = _attempt(finding, consent, run, tell)
        if attempt.result == "mended":
            found = judge()
            if any(each.steps == finding.steps and each.level != "ok" for each in found):
                attempt = msgspec.structs.replace(attempt, result="still")
        tell(f"      {_RESULTS[attempt.result]}{': ' if attempt.said else ''}{plain(attempt.said)}")
        attempts.append(attempt)
    return attempts, found


_RESULTS = {
    "mended": "mended",
    "still": "it ran, and the finding is still there",
    "failed": "failed",
    "declined": "not run",
    "left": "not run",
}


def _next(found: Iterable[Finding], tried: Collection[object]) -> Finding | None:
    return next((x for x in found if x.level != "ok" and x.steps and x.steps not in tried), None)


def _attempt(
    finding: Finding,
    consent: Consent,
    run: Callable[[tuple[str, ...]], object],
    tell: Callable[[str], None],
) -> Attempt:
    commands = tuple(shlex.join(step) for step in finding.steps)
    tell(f"{coloured(f'{finding.level:<6}', finding.level)}{plain(finding.text)}")
    for command in commands:
        tell(f"      $ {plain(command)}")
    result: Literal["mended", "failed", "declined", "left"]
    result, said = _agreed(finding, consent)
    if result == "mended":
        for step in finding.steps:
            try:
                run(step)
            except WeftError as error:
                result, said = "failed", error.message
                break
    return Attempt(
        id=finding.id,
        text=finding.text,
        commands=commands,
        owner=finding.owner,
        result=result,
        said=said,
    )


def _agreed(
    finding: Finding, consent: Consent
) -> tuple[Literal["mended", "declined", "left"], str]:
    owner = finding.owner
    if consent.yes:
        if not owner or owner in consent.foreign or finding.id in consent.foreign:
            return "mended", ""
        return (
            "left",
            f"it changes what belongs to {owner}; --foreign {shlex.quote(owner)} allows it",
        )
    words = f"this changes what belongs to {plain(owner)}; run it" if owner else "run it"
    return ("mended", "") if consent.ask(words) else ("declined", "")


def ask(question: str) -> bool:
    """A person's answer; anything but y or yes, and the end of the input, is a no."""
    sys.stderr.write(f"      {question}? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        complain("")
    return answer.strip().casefold() in ("y", "yes")


def runner(socket: str) -> Callable[[tuple[str, ...]], object]:
    """Runs a step as a program of the host; `weft` is this program, with the agent of `socket`."""

    def run(step: tuple[str, ...]) -> str:
        if step[0] != "weft":
            return programs.run(step, patience=PATIENCE)
        return programs.run(
            (sys.executable, "-m", "weft.main", "--socket", socket, *step[1:]), patience=PATIENCE
        )

    return run
