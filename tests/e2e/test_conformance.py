"""The conformance kit: weft passes it, the reference chain gets the verdicts it deserves, and
a plugin that lies, or an agent whose guard is taken away, turns it red.

The last is what the others stand on: a kit that cannot fail proves nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from weft.cni.install import DEFAULT_CONFLIST, place_launcher
from weft.lab import nodes, private
from weft.lab.cluster import agent_command
from weft.lab.conformance.groups import GROUPS

TABLE = Path(__file__).resolve().parents[2] / "docs/conformance.md"

REFERENCE = Path("/usr/lib/cni")
CHAIN = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd77::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
    ],
}
AGENT = shlex.join(agent_command())
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


class Weft:
    """The launcher and the list in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.bins = directory / "bin"
        self.conflist = directory / "weft.conflist"
        place_launcher(self.bins)
        self.conflist.write_bytes(DEFAULT_CONFLIST)


@pytest.fixture
def weft(tmp_path: Path) -> Weft:
    return Weft(tmp_path)


def _kit(
    conflist: Path, bins: Path, *more: str, setup: str = "", expect: int | None = None
) -> dict[str, Any]:
    """Run the kit through the command line, as people do; its report."""
    argv = [sys.executable, "-m", "weft.main", "conformance", "-o", "json"]
    argv += ["--conflist", str(conflist), "--bin", str(bins), *more]
    if setup:
        argv += ["--setup", f"exec {setup}"]
    done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=7200)
    assert done.returncode in ((0, 1) if expect is None else (expect,)), done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == int(any(f["verdict"] == "fail" for f in report["findings"]))
    return report


def _of(report: dict[str, Any], verdict: str) -> dict[str, str]:
    return {f["id"]: f["reason"] for f in report["findings"] if f["verdict"] == verdict}


@pytest.mark.matrix(id="T01", full=400, reduced=400)
def test_weft_passes_every_test_of_the_kit_and_all_of_them_apply(
    weft: Weft, tmp_path: Path, count: int
) -> None:
    written = tmp_path / "junit.xml"
    report = _kit(weft.conflist, weft.bins, "--junit", str(written), setup=AGENT)

    assert _of(report, "fail") == {}
    assert _of(report, "not applicable") == {}
    assert report["calls"] >= count
    found = {finding["id"].split(".")[0] for finding in report["findings"]}
    assert found == {*GROUPS, "leaks"}
    tests = Xml.parse(written).findall(".//testcase")
    assert len(tests) == len(report["findings"])


@pytest.mark.matrix(id="T29 kit", full=10_000, reduced=500)
def test_nothing_a_pod_forges_is_accepted_anywhere(weft: Weft, count: int) -> None:
    report = _kit(
        weft.conflist, weft.bins, "--only", "spoofing", "--count", f"frames={count}", setup=AGENT
    )

    assert _of(report, "fail") == {}
    assert _of(report, "not applicable") == {}


@pytest.mark.matrix(id="T32 kit", full=20_000, reduced=500)
def test_damaged_requests_get_an_answer_in_time_and_change_nothing(
    weft: Weft, count: int, tmp_path: Path
) -> None:
    # thousands of short attachments must not make the node claim further blocks of addresses
    settings = tmp_path / "weft.yaml"
    settings.write_text("ipam: {cooldown: 0, cooldownFloor: 0}\n")
    # 200 ms is the promise; fivefold slack, because this machine has other things to do
    sizes = ("--count", f"mutants={count}", "--count", "seconds=1")
    report = _kit(
        weft.conflist, weft.bins, "--only", "hostile", *sizes, setup=f"{AGENT} --config {settings}"
    )

    assert _of(report, "fail") == {}


def _reference(directory: Path, group: str) -> dict[str, Any]:
    conflist = directory / "reference.conflist"
    conflist.write_text(json.dumps(CHAIN))
    return _kit(conflist, REFERENCE, "--only", group)


LIARS = {
    # what the wrapper does instead, and the test that must notice
    "two objects on an error": (
        'out=$("$real"); rc=$?; printf %s "$out"; [ $rc = 0 ] || echo "{}"; exit $rc',
        "errors",
        "errors.command",
    ),
    "a deletion that does nothing": (
        '[ "$CNI_COMMAND" = DEL ] && exit 0; exec "$real"',
        "verbs",
        "verbs.delete",
    ),
    "a check that always succeeds": (
        '[ "$CNI_COMMAND" = CHECK ] && exit 0; exec "$real"',
        "check",
        "check.address-4",
    ),
    "a collection that collects nothing": (
        '[ "$CNI_COMMAND" = GC ] && exit 0; exec "$real"',
        "gc",
        "gc.leaked",
    ),
    "a status that prints": (
        '[ "$CNI_COMMAND" = STATUS ] && echo "{}" && exit 0; exec "$real"',
        "status",
        "status.healthy",
    ),
    "a deletion that fails the second time": (
        '[ "$CNI_COMMAND" = DEL ] && [ -n "$CNI_NETNS" ] && [ -e "$CNI_NETNS.del" ] && exit 1; '
        '[ "$CNI_COMMAND" = DEL ] && touch "$CNI_NETNS.del"; exec "$real"',
        "idempotence",
        "idempotence.del-five",
    ),
    "a file left behind by each attachment": (
        '[ "$CNI_COMMAND" = ADD ] && touch "/var/lib/cni/$CNI_CONTAINERID"; exec "$real"',
        "status",
        "leaks.reachability",
    ),
    "an answer in another version": (
        '[ "$CNI_COMMAND" = ADD ] || exec "$real"; out=$("$real"); rc=$?; '
        """printf %s "$out" | sed 's/"cniVersion": *"[0-9.]*"/"cniVersion":"1.0.0"/'; exit $rc""",
        "versions",
        "versions.0.4.0",
    ),
    "an address that is promised and not there": (
        '[ "$CNI_COMMAND" = ADD ] || exec "$real"; out=$("$real"); rc=$?; '
        """printf %s "$out" | sed 's/"address": *"10\\.[0-9.]*/"address":"10.9.9.9/'; exit $rc""",
        "verbs",
        "verbs.addresses",
    ),
    "a hang on bad input": (
        '[ "$CNI_IFNAME" = . ] && exec sleep 9; exec "$real"',
        "hostile",
        "hostile.if-dot",
    ),
}


def _liar(directory: Path, lie: str) -> dict[str, Any]:
    script, group, expected = LIARS[lie]
    if expected.startswith("leaks."):
        group = expected.removeprefix("leaks.")
    weft = Weft(directory)
    real = weft.bins / "weft.real"
    (weft.bins / "weft").rename(real)
    wrapper = weft.bins / "weft"
    # the name under which a plugin is executed is its type
    wrapper.write_text(f"#!/bin/sh\nreal={shlex.quote(str(real))}\n{script}\n")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return _kit(
        weft.conflist, weft.bins, "--only", group, "--count", "seconds=2", setup=AGENT, expect=1
    )


def _unguarded(directory: Path) -> dict[str, Any]:
    mutant = directory / "mutant.py"
    mutant.write_text(
        "import sys\n"
        "from weft.render import ingress\n"
        "assert ingress._unlisted()\n"
        "ingress._unlisted = lambda: ()\n"
        "from weft.main import main\n"
        "sys.exit(main(['agent']))\n"
    )
    weft = Weft(directory)
    setup = shlex.join([sys.executable, str(mutant)])
    return _kit(weft.conflist, weft.bins, "--only", "spoofing", setup=setup, expect=1)


class Found:
    """Reports of chains that must fail. Each kit has a node of its own, so a few run at a time;
    the first test that asks starts those of all tests that were chosen."""

    def __init__(self, pool: ThreadPoolExecutor, chosen: set[str], top: Path) -> None:
        kits: list[tuple[str, str, Callable[..., dict[str, Any]], tuple[str, ...]]] = [
            ("test_the_reference_chain_gets_the_verdicts_it_deserves", group, _reference, (group,))
            for group in ("spoofing", "verbs", "gc")  # the longest first
        ]
        kits.append(("test_an_agent_without_one_guard_is_found_out", "mutant", _unguarded, ()))
        kits += [
            (f"test_a_plugin_that_lies_is_found_out[{lie}]", lie, _liar, (lie,)) for lie in LIARS
        ]
        self._reports = {}
        for number, (test, name, kit, how) in enumerate(kits):
            if test in chosen:
                directory = top / str(number)
                directory.mkdir()
                self._reports[name] = pool.submit(kit, directory, *how)

    def report(self, *names: str) -> dict[str, Any]:
        """Of these kits, as one."""
        reports = [self._reports[name].result() for name in names]
        return {"findings": [finding for report in reports for finding in report["findings"]]}


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    pool = ThreadPoolExecutor(4)
    try:
        chosen = {item.name for item in request.session.items}
        yield Found(pool, chosen, tmp_path_factory.mktemp("kits"))
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.skipif(
    not (REFERENCE / "bridge").exists(), reason="containernetworking-plugins is not installed"
)
def test_the_reference_chain_gets_the_verdicts_it_deserves(found: Found) -> None:
    report = found.report("verbs", "gc", "spoofing")

    failed, passed = _of(report, "fail"), _of(report, "pass")
    assert {"verbs.add", "verbs.addresses", "verbs.routes", "verbs.delete"} <= passed.keys()
    # bridge without macspoofchk passes whatever a pod says about itself
    assert {"spoofing.source-4", "spoofing.mac-6", "spoofing.arp", "spoofing.ra"} <= failed.keys()
    assert {"verbs.previous", "verbs.version-echo"} <= failed.keys()
    # 1.1.1 speaks 1.0.0 at most
    assert {key for key in _of(report, "not applicable") if key.startswith("gc.")} == {
        f"gc.{name}"
        for name in ("leaked", "old-key", "union", "empty", "neither", "other", "repeat")
    }


@pytest.mark.parametrize("lie", LIARS)
def test_a_plugin_that_lies_is_found_out(found: Found, lie: str) -> None:
    _script, _group, expected = LIARS[lie]

    assert expected in _of(found.report(lie), "fail")


def test_an_agent_without_one_guard_is_found_out(found: Found) -> None:
    failed = _of(found.report("mutant"), "fail")
    # foreign IPv4 sources meet the second guard, rp_filter
    assert {"spoofing.source-6", "spoofing.mac-4", "spoofing.node-6"} <= failed.keys()


def test_a_chain_that_cannot_attach_is_an_error_of_usage(weft: Weft) -> None:
    argv = [sys.executable, "-m", "weft.main", "conformance", "--conflist", str(weft.conflist)]
    done = subprocess.run(
        [*argv, "--bin", str(weft.bins)], capture_output=True, text=True, env=ENVIRONMENT
    )

    assert done.returncode == 2
    assert "nothing to test" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kit_that_is_killed_leaves_no_process_behind(weft: Weft) -> None:
    argv = [sys.executable, "-m", "weft.main", "conformance", "--conflist", str(weft.conflist)]
    kit = subprocess.Popen(
        [*argv, "--bin", str(weft.bins), "--setup", f"exec {AGENT}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert kit.stderr is not None
    with kit.stderr:
        kit.stderr.readline()  # the agent serves, and the first group begins
    kit.kill()
    kit.wait()
    group = (private.unified_mount() or Path("/nowhere")) / nodes.GROUP
    held = list(group.glob(f"weft-kit-{kit.pid}-*/cgroup.procs"))
    assert held
    deadline = time.monotonic() + 10
    while any(path.read_text() for path in held) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert not any(path.read_text() for path in held)
    nodes.sweep(rf"weft-kit-{kit.pid}-.*")


def test_an_unknown_group_is_refused_and_the_groups_are_named(weft: Weft) -> None:
    argv = [sys.executable, "-m", "weft.main", "conformance", "--conflist", str(weft.conflist)]
    done = subprocess.run(
        [*argv, "--bin", str(weft.bins), "--only", "nonsense"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )

    assert done.returncode == 2
    assert "spoofing" in done.stderr


def test_the_table_of_results_in_the_docs_names_every_test() -> None:
    cells = re.findall(r"^\| `([a-z]+\.[a-z0-9.-]+)` \|", TABLE.read_text(), re.MULTILINE)
    known = {test.id for cases in GROUPS.values() for test in cases}

    assert sorted(cells) == sorted(known | {f"leaks.{group}" for group in GROUPS})


@pytest.mark.parametrize("bad", ["x", "frames=", "frames=0", "nonsense=3", "1", "-5", "\u0663"])
def test_a_count_that_is_none_is_refused(weft: Weft, bad: str) -> None:
    argv = [sys.executable, "-m", "weft.main", "conformance", "--conflist", str(weft.conflist)]
    done = subprocess.run(
        [*argv, "--bin", str(weft.bins), f"--count={bad}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )

    assert done.returncode == 2
    assert "--count" in done.stderr
