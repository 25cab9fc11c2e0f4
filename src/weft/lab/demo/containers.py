"""Attaching and detaching containers exactly as a runtime does: by executing the launcher.

The runtime is the lab's own (`lab.runtime`), aimed at the machine instead of a lab node. Nothing
here asks the agent: what is attached is read from the kernel, so that `down` knows it also while
no agent runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from weft.cni.install import DEFAULT_CONFLIST
from weft.lab.demo import places
from weft.lab.invocation import local
from weft.lab.runtime import Attachment, Outcome, Runtime
from weft.model.attachment import ALIAS_MARK, AliasRecord, AttachmentKey, read_alias
from weft.model.errors import NotReady, Unsupported, WeftError

IFNAME = "eth0"


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A container's network as the plugin's result told it. `seconds`: exec to answer."""

    name: str
    netns: Path
    addresses: tuple[str, ...]  # without prefix length
    destinations: tuple[str, ...]  # of the routes
    seconds: float

    def address(self, family: int) -> str | None:
        """Its address of a family, 4 or 6; None where it has none."""
        return next((a for a in self.addresses if (":" in a) == (family == 6)), None)


def refusal() -> str:
    """What STATUS says against attaching containers now; empty when nothing."""
    return _runtime().status().failure


def attach(name: str, netns: Path) -> Attached:
    """ADD; raises WeftError with the plugin's message."""
    pod = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={name}"
    outcome = _runtime().add(Attachment(container=name, netns=str(netns), ifname=IFNAME, args=pod))
    result = _good(outcome).result or {}
    return Attached(
        name=name,
        netns=netns,
        addresses=tuple(ip["address"].split("/")[0] for ip in result.get("ips", ())),
        destinations=tuple(route["dst"] for route in result.get("routes", ())),
        seconds=outcome.seconds,
    )


def detach(key: AttachmentKey, netns: Path | None = None) -> None:
    """DEL; succeeds also where nothing is attached."""
    runtime = _runtime(key.network)
    gone = Attachment(container=key.container, netns=str(netns or ""), ifname=key.ifname)
    _good(runtime.delete(gone))


def key_of(name: str) -> AttachmentKey:
    """The key of a demo container's attachment."""
    return AttachmentKey(_runtime().network, name, IFNAME)


def attached() -> list[AliasRecord]:
    """What is attached on this machine now, from the kernel itself: the host links' aliases."""
    found = []
    for link in Path("/sys/class/net").iterdir():
        try:
            alias = (link / "ifalias").read_text().rstrip("\n")
        except (FileNotFoundError, NotADirectoryError):  # just gone, or `bonding_masters`
            continue
        if alias.startswith(ALIAS_MARK):
            record = read_alias(alias)
            if record is None:
                raise Unsupported(f"the link {link.name} is of another version of weft: {alias}")
            found.append(record)
    return sorted(found, key=lambda record: record.key)


def _runtime(network: str | None = None) -> Runtime:
    conflist = DEFAULT_CONFLIST
    if network is not None:
        conflist = json.dumps({**json.loads(conflist), "name": network}).encode()
    launcher = places.CNI_BIN / places.PLUGIN
    if not launcher.exists():
        raise NotReady(f"the launcher {launcher} is not installed")
    return Runtime(conflist, [places.CNI_BIN], spawn=local, cache=places.RUN / "demo")


def _good(outcome: Outcome) -> Outcome:
    if not outcome.is_good:
        raise WeftError(outcome.failure)
    return outcome
