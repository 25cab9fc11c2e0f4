"""`weft import`: the containers that other plugins attached become known. What is on record of
them: `cni.former`; what the agent makes of it: `agent.importing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from weft.cli.client import Client
from weft.cli.columns import coloured, plain, table
from weft.cli.machine import Machine
from weft.cli.options import Report, client_of
from weft.cli.output import as_text, complain, echo
from weft.model.errors import Invalid, WeftError
from weft.wire.api import ApplyParams, FormerContainer, Imported, ImportParams, ListParams

if TYPE_CHECKING:
    from weft.cni.former import Container, Left, Places
    from weft.ipam.former import Cover

BATCH = 400
"""Containers in a call: well below the bound of a request."""
SHORT_ID = 12
_ROOMS = 4096
"""Octets that a container's entry may take in a call; what is longer goes alone."""
_BAD = ("refused",)


DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Only this former network. May be repeated.", show_default=False
    ),
]
Results = Annotated[str, typer.Option(metavar="DIR", help="libcni's results of ADD.")]
DataDirs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="host-local's dataDir, besides those that configurations name. May be repeated.",
        show_default="/var/lib/cni/networks",
    ),
]
BinDirs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="A further directory of the former plugins. May be repeated.",
        show_default=False,
    ),
]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One container. `result`: imported, changed, known, refused, leaving, own, or old."""

    network: str
    container: str
    ifname: str = ""
    pod: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    netns: str = ""
    alive: bool = True
    result: str
    why: str = ""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A former range: made, covered or open."""

    network: str
    cidr: str
    pool: str = ""
    state: str
    why: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole report. `good`: nothing was refused, and all could be read."""

    good: bool
    dry_run: bool
    containers: tuple[Row, ...] = ()
    pools: tuple[Pool, ...] = ()
    damaged: tuple[Any, ...] = ()
    gone: tuple[str, ...] = ()
    ours: int = 0


def import_(
    ctx: typer.Context,
    dry_run: DryRun = False,
    network: Networks = None,
    results: Results = "/var/lib/cni/results",
    data_dir: DataDirs = None,
    bin_dir: BinDirs = None,
    output: Report = None,
) -> None:
    """Know the containers that other CNI plugins attached.

    Reads libcni's results and host-local's directories. Containers keep what they have: their
    addresses and ports are given to nobody else (a disabled pool is made around each range of
    theirs that no pool covers), and the DEL that their runtime asks of weft is
    passed on to the plugins that made them. No file of others is changed. May be repeated: it adds
    what is new, and forgets what the former plugins have let go of. Exit status 1 where something
    was refused or could not be read.

    \b
    Examples:
      weft import --dry-run
      weft import
      weft import --network podman -o json
      weft get attachments                what is known then
    """
    from weft.cni import former
    from weft.model.kinds import encode_object

    if os.geteuid() != 0:
        raise WeftError("this reads files of root's", reason="not-permitted")
    client = client_of(ctx)
    places = _places(results, data_dir or [], bin_dir or [], network or [])
    left = former.read(places)
    covers = _cover(client, left)
    if not dry_run:
        for each in covers:
            if each.make is not None:
                client.call("apply", ApplyParams(object=encode_object(each.make)))
    answer = _answer(left, covers, _take_in(client, left, dry_run), dry_run)
    _show(answer, output)
    if not answer.good:
        raise typer.Exit(1)


def _places(results: str, data: list[str], plugins: list[str], networks: list[str]) -> Places:
    from weft.cni import former, runtimes

    for option, several in (
        ("--results", [results]), ("--data-dir", data), ("--bin-dir", plugins)
    ):  # fmt: skip
        for each in several:
            if not each.startswith("/"):
                raise Invalid(f"{option} {each}: must be an absolute path", field=option)
    found = [each for each in runtimes.find(Machine()) if not each.problem]
    return former.Places(
        results=results.rstrip("/"),
        networks=tuple(each.rstrip("/") for each in data),
        configurations=_once([former.CONFIGURATIONS, *(each.networks for each in found)]),
        plugins=_once(
            [*plugins, *(path for each in found for path in each.plugins), *former.PLUGINS]
        ),
        only=tuple(networks),
    )


def _once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _cover(client: Client, left: Left) -> list[Cover]:
    from weft.ipam.former import cover
    from weft.model.ip_pool import IPPool
    from weft.model.kinds import decode_object

    listed = client.call("list", ListParams(kind="IPPool")).items
    known = [each for each in map(decode_object, listed) if isinstance(each, IPPool)]
    networks = {each.key.network for each in left.containers}
    wanted = [(each.network, each.prefix) for each in left.ranges if each.network in networks]
    return cover(wanted, known)


def _take_in(client: Client, left: Left, dry_run: bool) -> Imported:
    """One answer of all calls."""
    items: list[Any] = []
    gone: tuple[str, ...] = ()
    for batch, last in _batches([c for c in left.containers if not c.problem]):
        params = ImportParams(containers=tuple(batch), last=last, dry_run=dry_run)
        said: Imported = client.call("import", params)
        items += said.items
        gone += said.gone
    return Imported(items=tuple(items), gone=gone)


def _batches(containers: list[Container]) -> Iterator[tuple[list[FormerContainer], bool]]:
    """What goes into each call, and whether it is the last."""
    batch: list[FormerContainer] = []
    room = BATCH
    for each in map(_asked, containers):
        size = max(1, len(msgspec.json.encode(each)) // _ROOMS)
        if batch and size > room:
            yield batch, False
            batch, room = [], BATCH
        batch.append(each)
        room -= size
    yield batch, True


def _asked(each: Container) -> FormerContainer:
    return FormerContainer(
        network=each.key.network,
        container=each.key.container,
        ifname=each.key.ifname,
        addresses=each.addresses,
        ports=each.ports,
        netns=each.netns,
        link=each.link,
        mac=each.mac,
        mtu=each.mtu,
        pod_namespace=each.pod.namespace,
        pod_name=each.pod.name,
        pod_uid=each.pod.uid,
        version=each.version,
        routed=each.routed,
        cache=each.cache,
        reservations=each.reservations,
        plugins=each.plugins,
        written=each.written,
    )


def _answer(left: Left, covers: list[Cover], said: Imported, dry_run: bool) -> Answer:
    became = {(i.network, i.container, i.ifname): (i.result, i.why) for i in said.items}
    rows = []
    for each in left.containers:
        key = each.key
        result, why = became.get((key.network, key.container, key.ifname), ("refused", ""))
        why = each.problem or why or ("its namespace is gone" if each.dead else "")
        rows.append(_row(each, result, why))
    rows += [_row(each, "old", "of an earlier boot") for each in left.old]
    return Answer(
        good=not left.damaged and not any(row.result in _BAD for row in rows),
        dry_run=dry_run,
        containers=tuple(rows),
        pools=tuple(
            Pool(network=c.network, cidr=c.cidr, pool=c.pool, state=c.state, why=c.why)
            for c in covers
        ),
        damaged=left.damaged,
        gone=said.gone,
        ours=left.ours,
    )


def _row(each: Container, result: str, why: str) -> Row:
    pod = each.pod
    return Row(
        network=each.key.network,
        container=each.key.container,
        ifname=each.key.ifname,
        pod=f"{pod.namespace}/{pod.name}".lstrip("/") if pod.name else "",
        addresses=each.addresses,
        ports=tuple(map(str, each.ports)),
        netns=each.netns,
        alive=not each.dead,
        result=result,
        why=why,
    )


def _show(answer: Answer, output: Any) -> None:
    if output is not None:
        echo(as_text(answer, output))
        return
    headings = ["NETWORK", "CONTAINER", "IFNAME", "NAMESPACE/POD", "ADDRESSES", "PORTS", "RESULT"]
    rows = [
        [
            each.network,
            each.container[:SHORT_ID],
            each.ifname,
            each.pod,
            ",".join(each.addresses),
            ",".join(each.ports),
            f"{each.result}: {each.why}" if each.why else each.result,
        ]
        for each in answer.containers
    ]
    if rows:
        echo(table(headings, rows))
    say = echo if answer.good else complain
    _show_rest(answer, say)
    counts = {word: sum(row.result == word for row in answer.containers) for word in _WORDS}
    told = [f"{number} {word}" for word, number in counts.items() if number]
    if answer.gone:
        told.append(f"{len(answer.gone)} forgotten")
    closing = ", ".join(told) or "there is nothing to import"
    say(closing + ("; nothing was changed" if answer.dry_run else ""))


_WORDS = ("imported", "changed", "known", "own", "leaving", "refused", "old")


def _show_rest(answer: Answer, say: Any) -> None:
    made = "would be made" if answer.dry_run else "made, disabled"
    for pool in answer.pools:
        word = {"made": made, "covered": "covers it", "open": "no pool"}[pool.state]
        name = f"pool {pool.pool} {word}" if pool.pool else word
        why = f": {pool.why}" if pool.why else ""
        say(plain(f"range {pool.cidr} of {pool.network}: {name}{why}"))
    for each in answer.damaged:
        say(f"{coloured('unreadable', 'bad')} {plain(each.path)}: {plain(each.why)}")
    for key in answer.gone:
        say(f"forgotten: {plain(key)}, which its own plugins have let go of")
