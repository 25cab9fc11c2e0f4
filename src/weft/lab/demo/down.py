"""`./dev down`: detach, stop, and give back everything on record, last first."""

from __future__ import annotations

import subprocess

from weft.lab.demo import containers, places, service
from weft.lab.demo.record import Record, give_back
from weft.lab.demo.up import say
from weft.model.attachment import AliasRecord
from weft.model.errors import Conflict, WeftError


def down(force: bool) -> None:
    """Idempotent; raises Conflict with a list while containers not of the demo are attached."""
    things = list(Record().things())
    if not things:
        say("nothing to give back: no `up` on record")
        return
    if (places.CNI_BIN / places.PLUGIN).exists():
        _detach_all(force)
    service.stop()
    if any(thing.path == str(places.RUN) for thing in things):  # else no agent was ever started
        _teardown()
    service.forget()
    stayed = give_back(things)
    if service.has_systemd():
        subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=60)
    for line in stayed:
        say(f"left: {line}")
    say("the machine is as it was before `up` (packages and .venv stay)")


def _detach_all(force: bool) -> None:
    attached = containers.attached()
    foreign = [record for record in attached if record.key.container not in places.CONTAINERS]
    if foreign and not force:
        lines = "\n".join(f"    {_described(record)}" for record in foreign)
        raise Conflict(
            f"containers are attached that are not the demo's:\n{lines}\n"
            "Remove them, or detach them all with: ./dev down --force"
        )
    for record in attached:
        say(f"detaching: {_described(record)}")
        containers.detach(record.key)


def _described(record: AliasRecord) -> str:
    pod = f" ({record.pod.namespace}/{record.pod.name})" if record.pod.name else ""
    return f"{record.key} {' '.join(record.addresses)}{pod}"


def _teardown() -> None:
    """Have weft remove what it holds in the kernel and put changed sysctls back."""
    command = [str(places.PROGRAM), "agent", "--teardown"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise WeftError(f"{' '.join(command)} failed: {done.stderr.strip()}")
