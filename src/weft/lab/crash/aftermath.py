"""What comes after the fault, and what must be true then.

CNI lets a runtime do four things: DEL what it gave up on, ADD again, GC with what it still knows,
or nothing while the agent is started anew. After each of them the node must hold exactly what it
held before the verb - or, after the repeated ADD, one attachment that is right. An ADD that is
refused because the first one had in fact come true may be repeated once, after the DEL that the
refusal asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.lab import truth
from weft.lab.crash.stage import BYSTANDERS, SUBJECTS, Stage, addresses
from weft.lab.crash.strike import Struck
from weft.lab.crash.verbs import Prepared, Verb
from weft.lab.invocation import Call
from weft.lab.runtime import Json
from weft.model.attachment import AttachmentKey

_LOOSE = "setns"
"""An agent that cannot return from a pod's namespace ends itself (`kernel.namespaces`)."""


class Scene:
    """The play after one fault; `problems` gathers what is wrong, `retried` what took two tries."""

    def __init__(self, stage: Stage, verb: Verb, prepared: Prepared, struck: Struck) -> None:
        self.stage = stage
        self.verb = verb
        self.results = dict(prepared.results)
        self.struck = struck
        self.problems: list[str] = []
        self.retried = False
        self.killed = False
        self.lost = stage.traffic.counted().lost

    def play(self, then: str, *, killed: bool) -> None:
        """The follow-up of that name, with all checks before and after."""
        self.killed = killed
        self._answer()
        said = self.struck.said
        if said is not None and said.status == 0:
            self._succeeded(said)
        if not self.problems:
            FOLLOW_UPS[then](self)
        if not self.problems:
            self.end()

    # -- the struck verb itself

    def _answer(self) -> None:
        said, struck = self.struck.said, self.struck
        if said is not None and not _is_clean(said, struck):
            shown = said.stdout[:200].decode(errors="replace")
            self.problems.append(f"answered with status {said.status} and {shown!r}")
        if struck.died and not self.killed and not struck.where.startswith(_LOOSE):
            self.problems.append("the agent ended")

    def _succeeded(self, said: Call) -> None:
        """What was promised is so."""
        self.revive()
        if self.verb.call == "ADD":
            self.results[SUBJECTS[0]] = said.json or {}
        elif self.verb.removes:
            self.results.clear()
            self.restored("although it succeeded: ")
        for name, result in self.results.items():
            self.attached(name, result)

    # -- what follow-ups are made of

    def revive(self) -> None:
        """What a supervisor does: start the agent if it is gone."""
        self.stage.start()

    def ask(self, verb: str, name: str = "", *, keep: Sequence[str] = ()) -> Call:
        """A call that has to succeed."""
        said = self.stage.send(verb, name, keep=keep)
        if said.status != 0:
            self.problems.append(f"{verb} {name} failed: {said.summary}")
        return said

    def delete(self) -> None:
        """DEL of all that was struck."""
        for name in SUBJECTS:
            self.ask("DEL", name)
        self.results.clear()

    def restored(self, when: str = "") -> None:
        """The node holds what it held before."""
        self.problems += [f"{when}{line}" for line in self.stage.left()]
        self.problems += self.stage.ledger(BYSTANDERS)

    def attached(self, name: str, result: Json) -> None:
        """One attachment stands, as its ADD answered."""
        check = self.stage.send("CHECK", name, previous=result)
        if check.status != 0:
            self.problems.append(f"{name} was promised, and CHECK says: {check.summary}")
        self._has(name, set(addresses(result)))

    def whole_or_nothing(self, names: Sequence[str]) -> None:
        """Attachments of which nobody knows stand entirely or not at all."""
        links = truth.links(self.stage.node.network)
        standing = []
        for name in names:
            link = links.get(AttachmentKey("weft", name, "eth0").host_link)
            if link is None:
                self._has(name, set())
                continue
            standing.append(name)
            found = self.stage.pod_addresses(name)
            if "UP" not in link["flags"]:
                self.problems.append(f"{name}: its link {link['ifname']} stands, but is down")
            if len(found) != len(addresses(self.stage.bystanders[BYSTANDERS[0]])):
                self.problems.append(f"{name}: its link stands, but its addresses are {found}")
        self.problems += self.stage.ledger([*BYSTANDERS, *self.results, *standing])

    def _has(self, name: str, wanted: set[str]) -> None:
        found = self.stage.pod_addresses(name)
        if found != wanted:
            self.problems.append(f"{name} has the addresses {found} and not {wanted}")

    def end(self) -> None:
        """Back to where the next trial begins, and nobody was hurt."""
        self.revive()
        self.delete()
        self.restored()
        unforeseen = self.stage.unforeseen()
        if self.killed:  # an errno that no kernel gives there may be a surprise, and is logged
            self.problems += [f"the agent's log: {line}" for line in unforeseen]
        counted = self.stage.traffic.counted()
        if counted.lost > self.lost:
            self.problems.append(
                f"bystanders lost {counted.lost - self.lost} of {counted.sent} datagrams"
            )


def _then_del(scene: Scene) -> None:
    scene.delete()
    scene.revive()
    scene.restored()


def _then_add(scene: Scene) -> None:
    scene.revive()
    subject = SUBJECTS[0]
    stands = scene.results.get(subject)
    said = scene.stage.send("ADD", subject)
    if said.status == 0 and stands is not None and (scene.verb.keeps or scene.verb.call == "ADD"):
        scene.problems.append("ADD was answered twice for one attachment")
    elif said.status != 0 and stands is not None and not scene.verb.removes:
        scene.attached(subject, stands)  # refused as it has to be
    else:
        if said.status != 0:
            scene.retried = True
            scene.ask("DEL", subject)
            said = scene.ask("ADD", subject)
        if said.status == 0:
            scene.attached(subject, said.json or {})


def _then_gc(scene: Scene) -> None:
    scene.revive()
    keep = [*BYSTANDERS, *(scene.results if scene.verb.keeps else ())]
    scene.ask("GC", keep=keep)
    if scene.verb.keeps:
        for name, result in scene.results.items():
            scene.attached(name, result)
    else:
        scene.restored()


def _then_restart(scene: Scene) -> None:
    scene.stage.kill()
    scene.revive()
    if scene.verb.removes:
        scene.results.clear()  # promised no longer
    for name, result in scene.results.items():
        scene.attached(name, result)
    scene.whole_or_nothing([name for name in SUBJECTS if name not in scene.results])


FOLLOW_UPS: dict[str, Callable[[Scene], None]] = {
    "del": _then_del,
    "add": _then_add,
    "gc": _then_gc,
    "restart": _then_restart,
}


def _is_clean(said: Call, struck: Struck) -> bool:
    """Exactly one JSON object, or nothing, on success; exactly one error object on failure."""
    if said.status is None or said.status < 0 or said.status >= 128:
        return struck.where != "" and said.status is not None  # it was the launcher that was killed
    if said.status == 0:
        return not said.stdout or said.json is not None
    if not said.stdout and struck.mute:
        return said.status == 1
    return said.status == 1 and said.code is not None and bool((said.json or {}).get("msg"))
