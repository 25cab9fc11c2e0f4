"""What `weft support` collects: one function a part, and the table of them at the end.

A part gives plain data or text, already redacted; what it cannot have it says by an exception,
whose words stand in the archive instead. Nothing is changed, and nothing waits for long.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from weft import __version__
from weft.agent.places import read_settings
from weft.cli.client import Client
from weft.cli.doctor import diagnose
from weft.cli.machine import Machine
from weft.cli.support.redaction import Redactor
from weft.cni import runtimes
from weft.cni.runtimes.choice import configurations as configurations_of
from weft.cni.runtimes.found import NETWORKS
from weft.engines import programs
from weft.kernel import files
from weft.model.attachment import LINK_PREFIX, LINK_PREFIXES
from weft.model.errors import NotFound, WeftError
from weft.model.kinds import KINDS
from weft.model.settings import SETTINGS_PATH, Settings
from weft.wire.api import EventsParams, ListParams, Nothing, Params
from weft.wire.status import Status

PATIENCE = 10.0  # seconds a program, a call, a connection
LARGEST = 16 << 20  # octets a part
LOG_TAIL = 2 << 20
JOURNAL_LINES = 5000
ROWS = 20_000  # of a table
LOG = Path("/var/log/weft/agent.log")
TABLES = {
    "journal": ("attachment", "cooling", "given", "meta"),
    "store": ("format", "state", "entries"),
}
LINK_KEYS = ("ifindex", "ifname", "flags", "mtu", "operstate", "address", "master", "group")
SYSCTLS = (
    *("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter"),
    *("net/ipv6/conf/all/disable_ipv6", "net/bridge/bridge-nf-call-iptables"),
    *("net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"),
    *("net/ipv4/neigh/default/gc_thresh3", "net/ipv6/neigh/default/gc_thresh3"),
)


class Scene:
    """Whom the parts ask. `log`: the agent's log, or a directory of the journal's, and `config`:
    its settings, where they are not found by themselves."""

    def __init__(
        self,
        client: Client,
        redactor: Redactor,
        log: Path | None = None,
        config: Path | None = None,
    ) -> None:
        self.client = client
        self.redactor = redactor
        self.log = log
        self._config = config

    def call(self, method: str, params: Params | None = None) -> Any:
        """An answer of the agent's as plain, redacted data."""
        found = self.client.call(method, params or Nothing())
        return self.redactor.tree(msgspec.to_builtins(found))

    @cached_property
    def settings_file(self) -> Path:
        """That of the command line, else that of the running agent, else the usual one."""
        if self._config is not None:
            return self._config.absolute()
        try:
            told = self.client.call("status", Nothing())
        except WeftError:
            told = None
        return Path((isinstance(told, Status) and told.settings) or SETTINGS_PATH)

    def settings(self) -> Settings:
        """The effective settings. Raises WeftError where the file is not valid."""
        return read_settings(self.settings_file, required=self._config is not None)


def status(scene: Scene) -> Any:
    """What the agent says of itself."""
    return scene.call("status")


def doctor(scene: Scene) -> Any:
    """The findings of `weft doctor`."""
    return scene.redactor.tree(msgspec.to_builtins(diagnose(scene.client)))


def events(scene: Scene) -> Any:
    """What happened lately."""
    return scene.call("events", EventsParams(limit=500))


def attachments(scene: Scene) -> Any:
    """What is attached."""
    return scene.call("list", ListParams(kind="attachments"))


def addresses(scene: Scene) -> Any:
    """Who has which address, and whether that is so."""
    return {"use": scene.call("ipam.show"), "audit": scene.call("ipam.check")}


def objects(scene: Scene) -> Any:
    """Every object of every kind."""
    return {kind: scene.call("list", ListParams(kind=kind)) for kind in KINDS}


def settings(scene: Scene) -> Any:
    """The effective settings; of a file that is not valid, only which field is not."""
    file = scene.redactor.text(str(scene.settings_file))
    try:
        return {"file": file, **scene.redactor.tree(msgspec.to_builtins(scene.settings()))}
    except WeftError as error:
        field = scene.redactor.text(getattr(error, "field", ""))
        return {"file": file, "invalid": error.reason, "field": field}


def journal(scene: Scene) -> Any:
    """The journal's rows."""
    return _database(scene, Path(_paths(scene).paths.journal), TABLES["journal"])


def store(scene: Scene) -> Any:
    """The store's rows."""
    return _database(scene, Path(_paths(scene).paths.store), TABLES["store"])


def configurations(scene: Scene) -> Any:
    """What runtimes read, every plugin's."""
    found: dict[str, Any] = {}
    machine = Machine()
    directories = (NETWORKS, *(each.networks for each in runtimes.find(machine)))
    paths = [
        Path(directory, each.file)
        for directory in dict.fromkeys(directories)
        for each in configurations_of(machine, directory)
    ]
    for path in paths:
        content = files.glance(path, 1 << 20)
        name = path.name if str(path.parent) == NETWORKS else str(path)
        if content is not None:
            try:
                found[name] = scene.redactor.configuration(json.loads(content))
            except (ValueError, RecursionError):
                found[name] = f"{len(content)} octets that are no JSON"
    return found


def links(scene: Scene) -> Any:
    """Links with their addresses; the alias of ours only."""
    listed = json.loads(_output("ip", "-j", "-d", "addr", "show"))
    shown = []
    for link in listed:
        kept = {key: link[key] for key in LINK_KEYS if key in link}
        kept["kind"] = link.get("linkinfo", {}).get("info_kind", "")
        kept["addresses"] = [
            f"{each.get('local')}/{each.get('prefixlen')}" for each in link.get("addr_info", ())
        ]
        if link.get("ifname", "").startswith(LINK_PREFIXES):
            alias = link.get("ifalias", "")
            kept["alias"] = scene.redactor.text(alias) if alias.startswith("weft:") else ""
        shown.append(kept)
    return shown


def routes(scene: Scene) -> Any:
    """Routes of all tables, and the rules that choose among them."""
    return {
        f"{what}{family}": json.loads(_output("ip", "-j", f"-{family}", *words) or "[]")
        for family in (4, 6)
        for what, words in (
            ("route", ("route", "show", "table", "all")),
            ("rule", ("rule", "show")),
        )
    }


def neighbours(scene: Scene) -> Any:
    """Neighbours of our links."""
    listed = json.loads(_output("ip", "-j", "neigh", "show") or "[]")
    return [each for each in listed if str(each.get("dev", "")).startswith(LINK_PREFIX)]


def rules(scene: Scene) -> Any:
    """Our tables whole; of others' base chains name, hook and policy."""
    standing = _output("nft", "list", "tables").splitlines()
    ours = {
        family: _table(family)
        for family in ("inet", "arp", "bridge")
        if f"table {family} weft" in standing
    }
    keys = ("family", "table", "name", "type", "hook", "prio", "policy")
    listed = json.loads(_output("nft", "-j", "list", "chains"))["nftables"]
    chains = [
        {key: each["chain"][key] for key in keys if key in each["chain"]}
        for each in listed
        if "hook" in each.get("chain", {}) and each["chain"].get("table") != "weft"
    ]
    return {"ours": ours, "others": chains}


def _table(family: str) -> Any:
    """A table as nft tells it: as JSON, or as text where its JSON is none. Up to nft 1.0.6 that is
    so of a table whose owner has gone, because it does not know such a table's flags."""
    try:
        return json.loads(_output("nft", "-j", "list", "table", family, "weft"))
    except json.JSONDecodeError:
        return _output("nft", "list", "table", family, "weft").splitlines()


def sysctls(scene: Scene) -> Any:
    """The sysctls that decide whether packets pass; those of our links' directories, too."""
    machine = Machine()
    names = [f"/proc/sys/{name}" for name in SYSCTLS]
    return {name: (machine.text(name) or "absent").strip() for name in names}


def versions(scene: Scene) -> Any:
    """Releases of everything that takes part."""
    release = Machine().text("/etc/os-release") or ""
    pretty = next((x for x in release.splitlines() if x.startswith("PRETTY_NAME=")), "")
    return {
        "weft": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "msgspec": msgspec.__version__,
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "system": pretty.partition("=")[2].strip('"'),
        "node": os.uname().nodename,
    }


def metrics(scene: Scene) -> str:
    """The metrics as Prometheus would read them."""
    listen = scene.settings().metrics.listen
    if listen == "off" or listen.startswith("unix:"):
        raise NotFound(f"metrics.listen is {listen.partition(':')[0]}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{listen}/metrics", timeout=PATIENCE) as answer:
        return scene.redactor.text(answer.read(LARGEST).decode(errors="replace"))


def log(scene: Scene) -> str:
    """The end of the agent's log, of the lines that the agent wrote."""
    where: tuple[str, ...] = ()
    if scene.log is not None and scene.log.is_dir():
        where = ("--directory", str(scene.log.absolute()))
    else:
        text = _tail(scene.log or LOG)
        if text is not None:
            return scene.redactor.log(text)
        if scene.log is not None:
            raise NotFound(f"{scene.log} is no file that can be read")
    asked = ("--unit", "weft", "--lines", str(JOURNAL_LINES), "--no-pager", "-o", "cat", "--quiet")
    text = _output("journalctl", *where, *asked)
    if not text:
        raise NotFound("neither is there a log file nor has the journal lines of unit weft")
    return scene.redactor.log(text)


def _paths(scene: Scene) -> Settings:
    try:
        return scene.settings()
    except WeftError:
        return Settings()


def _tail(path: Path) -> str | None:
    if not path.is_file():  # a pipe would be waited for
        return None
    content = files.glance(path, 256 << 20)
    return None if content is None else content[-LOG_TAIL:].decode(errors="replace")


def _output(*argv: str) -> str:
    return programs.run(argv, patience=PATIENCE)


def _database(scene: Scene, path: Path, tables: tuple[str, ...]) -> Any:
    """Rows of a copy: the agent holds the file locked, and no second process may open it."""
    with tempfile.TemporaryDirectory(prefix="weft-support-") as home:
        copy = Path(home, "copy.db")
        for each in files.companions(path)[:2]:
            if os.path.lexists(each):
                content = files.read(each, LARGEST)
                copy.with_name(copy.name + each.name.removeprefix(path.name)).write_bytes(content)
        if not copy.exists():
            raise NotFound(f"{path} does not exist")
        with closing(sqlite3.connect(copy)) as database:
            database.row_factory = sqlite3.Row
            present = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            return {table: _rows(database, table, scene) for table in tables if table in present}


def _rows(database: sqlite3.Connection, table: str, scene: Scene) -> list[dict[str, Any]]:
    """The first ROWS of a table; that there are more is the last entry."""
    # the name is one of ours, not of the file
    found = database.execute(f"SELECT * FROM {table} LIMIT {ROWS + 1}").fetchall()  # noqa: S608
    told = [
        {name: scene.redactor.tree(_decoded(value)) for name, value in _named(row)}
        for row in found[:ROWS]
    ]
    if len(found) > ROWS:
        told.append({"left out": f"there are more than {ROWS} rows"})
    return told


def _named(row: sqlite3.Row) -> list[tuple[str, Any]]:
    return list(zip(row.keys(), tuple(row), strict=True))


def _decoded(value: Any) -> Any:
    """A stored value as data: JSON of the store, MessagePack of the journal."""
    if not isinstance(value, bytes):
        return value
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            return decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return value


PARTS: tuple[tuple[str, Callable[[Scene], Any]], ...] = (
    ("versions.json", versions),
    ("status.json", status),
    ("settings.json", settings),
    ("doctor.json", doctor),
    ("attachments.json", attachments),
    ("addresses.json", addresses),
    ("events.json", events),
    ("objects.json", objects),
    ("journal.json", journal),
    ("store.json", store),
    ("configurations.json", configurations),
    ("links.json", links),
    ("routes.json", routes),
    ("neighbours.json", neighbours),
    ("rules.json", rules),
    ("sysctls.json", sysctls),
    ("metrics.txt", metrics),
    ("agent.log", log),
)
