"""Whose a chain is: known from names, as every one of these programs has names of its own.

A drop in a chain of a program's name is that program's. A drop by policy, or in a chain whose name
says nothing, is put down to those programs that are known to set such policies and have chains
there, led to or not yet; else to nobody known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from weft.firewalls.judge import Judgement

OTHER = "other"


class Owner(NamedTuple):
    """A program: its word, its name for people, its tables, how names of its chains begin."""

    word: str
    name: str
    tables: frozenset[str]
    chains: tuple[str, ...]
    sets_policies: bool = False


OWNERS = (
    Owner(
        "firewalld",
        "firewalld",
        frozenset(("firewalld", "firewalld_policy_drop")),
        ("filter_FWD_", "filter_IN_", "FWD_", "FWDI_", "FWDO_", "FORWARD_ZONES", "INPUT_ZONES"),
        True,
    ),
    Owner("docker", "Docker", frozenset(("docker-bridges",)), ("DOCKER",), True),
    Owner("ufw", "ufw", frozenset(), ("ufw-", "ufw6-"), True),
    Owner("libvirt", "libvirt", frozenset(("libvirt_network",)), ("LIBVIRT_",)),
    Owner("podman", "Podman", frozenset(("netavark",)), ("NETAVARK",)),
    Owner("kube-proxy", "kube-proxy", frozenset(("kube-proxy",)), ("KUBE-",)),
    Owner("calico", "Calico", frozenset(("calico",)), ("cali-",)),
    Owner("cilium", "Cilium", frozenset(), ("CILIUM_",)),
    Owner("flannel", "flannel", frozenset(("flannel-ipv4", "flannel-ipv6")), ("FLANNEL-",)),
    Owner("weave", "Weave Net", frozenset(), ("WEAVE-",)),
    Owner("antrea", "Antrea", frozenset(), ("ANTREA-",)),
    Owner("cni", "the CNI plugins", frozenset(("cni_hostport",)), ("CNI-",)),
)
NAMES = {owner.word: owner.name for owner in OWNERS} | {OTHER: "nobody known"}


def owners_of(judgement: Judgement) -> tuple[str, ...]:
    """The words of those who drop; of those who have chains there where nothing is dropped."""
    places = {each.place for each in judgement.answers if each.dropped and each.place}
    direct = [owner.word for owner in OWNERS if any(_owns(owner, place) for place in places)]
    if direct and all(any(_owns(owner, place) for owner in OWNERS) for place in places):
        return tuple(direct)
    table = judgement.chain.table
    names = (judgement.chain.name, *judgement.leads_to)
    found = [
        owner.word for owner in OWNERS if table in owner.tables or _sets_policy(owner, names)
    ] or [owner.word for owner in OWNERS if _sets_policy(owner, judgement.beside)]
    return tuple(dict.fromkeys((*direct, *found))) or (OTHER,)


def owner_of_name(name: str) -> Owner | None:
    """The program that names chains so."""
    return next((owner for owner in OWNERS if _owns(owner, name)), None)


def _sets_policy(owner: Owner, names: Iterable[str]) -> bool:
    return owner.sets_policies and any(_owns(owner, name) for name in names)


def _owns(owner: Owner, name: str) -> bool:
    return name.startswith(owner.chains)
