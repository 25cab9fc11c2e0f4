"""Runtimes replayed against this release, and what each replay is there to find out.

The second half are plugins that fail in one way that only one kind of runtime notices: a replay
that passes them proves nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from weft.lab import calls, cluster
from weft.lab.nodes import CLEAN_PATH, Node
from weft.lab.replay import conduct, traffic
from weft.lab.replay.conduct import Plan, Played
from weft.lab.replay.persona import Call, Run
from weft.lab.replay.player import Scene
from weft.lab.replay.table import PERSONAS
from weft.lab.wiring import node_addresses

NODE = node_addresses(0)[0]


@pytest.fixture(scope="module")
def staged() -> Iterator[tuple[Node, Scene]]:
    """A node with an agent that has attached a container and detached it."""
    with conduct.stage(Plan()) as (node, outside):
        yield node, conduct.scouted(node, outside, Plan())


def bad(played: Played) -> dict[str, str]:
    return {f.id: f.reason for f in played.findings if f.verdict != "pass"}


@pytest.mark.parametrize("name", PERSONAS)
def test_weft_under(staged: tuple[Node, Scene], name: str) -> None:
    played = conduct.play(staged[0], name, staged[1])
    assert bad(played) == {}
    steps = [step for step in PERSONAS[name].steps if isinstance(step, Call | Run)]
    assert len(played.calls) >= len(steps)


LIES: dict[str, tuple[str, str, str]] = {
    # runtime, what the wrapper does around the real plugin, the step that must fail
    "a list of GC that is null is refused": (
        "crio",
        'in=$(cat); case "$CNI_COMMAND$in" in GC*attachments\\":null*) echo "{\\"code\\":7,'
        '\\"msg\\":\\"no\\"}"; exit 1;; esac; printf %s "$in" | "$real"',
        "crio.3",
    ),
    "an address that is promised and not there": (
        "openshift",
        'out=$("$real"); rc=$?; printf %s "$out" | sed '
        """'/"ips"/,$ s/"address": *"10\\.[0-9.]*/"address":"10.9.9.9/'; exit $rc""",
        "openshift.4",
    ),
    "a deletion that needs a namespace": (
        "k3s",
        '[ "$CNI_COMMAND" = DEL ] && [ -z "$CNI_NETNS" ] && exit 1; exec "$real"',
        "k3s.6",
    ),
    "a deletion of nothing that fails": (
        "nerdctl",
        '[ "$CNI_COMMAND" = DEL ] && [ ! -e "/run/netns/replay.$CNI_IFNAME" ] && '
        'touch "/run/netns/replay.$CNI_IFNAME" && exit 1; '
        'rm -f "/run/netns/replay.$CNI_IFNAME"; exec "$real"',
        "nerdctl.2",
    ),
    "no word about the version": ("nomad", '[ -z "$CNI_COMMAND" ] && exit 0; exec "$real"',
                                  "nomad.1"),
    "a check that fails": ("nomad", '[ "$CNI_COMMAND" = CHECK ] && exit 1; exec "$real"',
                           "nomad.5"),
    "the address that was asked for is not given": (
        "apptainer",
        'export CNI_ARGS=IgnoreUnknown=1; exec "$real"',
        "apptainer.2",
    ),
    "ports in another spelling are passed over": (
        "cloudfoundry",
        'sed s/host_port/HP/g | "$real"',
        "cloudfoundry.2",
    ),
    "arguments of others are passed over": ("mesos", 'sed s/org.apache.mesos/x/ | "$real"',
                                            "mesos.2"),
    "a result of a later form": (
        "mesos",
        """sed 's/^{/{"cniVersion":"1.0.0",/' | "$real\"""",
        "mesos.1",
    ),
    "no answer to --version": ("ecs", '[ -z "$CNI_COMMAND" ] && exit 0; exec "$real"', "ecs.1"),
    "a need of PATH": ("om3", 'env | grep -q ^LANG= || exit 1; exec "$real"', "om3.1"),
    "an interface that must be the only one": (
        "opensvc2",
        '[ "$CNI_COMMAND" = ADD ] && [ "$CNI_IFNAME" != eth0 ] && exit 1; exec "$real"',
        "opensvc2.2",
    ),
    "a result without ip4": ("rkt", """"$real" | sed 's/"ip4"/"ipv4"/'""", "rkt.1"),
    "a container ID under one name alone": ("rkt-old", 'unset CNI_PODID; exec "$real"',
                                            "rkt-old.1"),
    "a collection that collects nothing": (
        "openshift",
        '[ "$CNI_COMMAND" = GC ] && exit 0; exec "$real"',
        "openshift.left",
    ),
    "a file left behind": (
        "crio",
        '[ "$CNI_COMMAND" = ADD ] && touch "/var/lib/cni/left-by-replay"; exec "$real"',
        "crio.left",
    ),
}  # fmt: skip


@pytest.fixture
def lying(staged: tuple[Node, Scene]) -> Iterator[Callable[[str], Scene]]:
    """Wraps the launcher; the scene with the wrapper in it."""
    node, scene = staged
    directory = node.path("/run/lying")
    directory.mkdir()
    real = node.path("/opt/cni/bin/weft").read_bytes()

    def wrap(script: str) -> Scene:
        (directory / "weft.real").write_bytes(real)
        (directory / "weft.real").chmod(0o755)
        wrapper = directory / "weft"
        quoted = shlex.quote("/run/lying/weft.real")
        wrapper.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\nreal={quoted}\n{script}\n")
        wrapper.chmod(0o755)
        return msgspec.structs.replace(scene, plugins="/run/lying", patience=None)

    yield wrap
    for each in (*directory.iterdir(), node.path("/var/lib/cni/left-by-replay")):
        each.unlink(missing_ok=True)
    directory.rmdir()


@pytest.mark.parametrize("lie", LIES)
def test_a_replay_finds_out(
    staged: tuple[Node, Scene], lying: Callable[[str], Scene], lie: str
) -> None:
    name, script, expected = LIES[lie]
    scene = lying(script)
    if expected.endswith(".left"):
        scene = msgspec.structs.replace(scene, patience=0.3)
    assert expected in bad(conduct.play(staged[0], name, scene))


def test_a_plugin_that_is_too_slow_for_its_runtime_is_found_out(
    staged: tuple[Node, Scene],
    lying: Callable[[str], Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasty = msgspec.structs.replace(PERSONAS["apptainer"], limit=0.3, args=())
    monkeypatch.setitem(PERSONAS, "apptainer", hasty)
    scene = lying('[ "$CNI_COMMAND" = ADD ] && sleep 1; exec "$real"')
    assert "no answer within" in bad(conduct.play(staged[0], "apptainer", scene))["apptainer.2"]


def test_a_port_that_somebody_else_has_is_not_the_runtimes(
    staged: tuple[Node, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = msgspec.structs.replace(staged[1], patience=None)
    for name in ("nerdctl", "apptainer"):
        stranger = msgspec.structs.replace(PERSONAS[name], program="stranger", args=())
        monkeypatch.setitem(PERSONAS, name, stranger)
        (found,) = [
            reason
            for key, reason in bad(conduct.play(staged[0], name, quiet)).items()
            if "ADD" in reason
        ]
        assert "in use by" in found


# -- what stands beside a replay


def executed(node: Node, program: str, verb: str, conf: dict[str, object]) -> dict[str, object]:
    """One call for the container `beside` on its interface eth12; the object that was answered."""
    env = {
        "PATH": CLEAN_PATH,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "beside",
        "CNI_NETNS": "/run/netns/beside",
        "CNI_IFNAME": "eth12",
        "CNI_PATH": str(Path(program).parent),
    }
    done = node.run([program], env=env, stdin=json.dumps(conf).encode())
    answer: dict[str, object] = json.loads(done.stdout or b"{}")
    assert (done.returncode == 0) == ("code" not in answer), (done.stdout, done.stderr)
    return answer


@pytest.fixture
def beside(staged: tuple[Node, Scene]) -> Iterator[Node]:
    """The node with an empty namespace `beside`."""
    node, _ = staged
    calls.call(node, cluster.create, "beside")
    yield node
    calls.call(node, cluster.remove, "beside")


def test_what_opensvc_2_exposes_is_published_by_the_reference_plugin_behind_weft(
    staged: tuple[Node, Scene], beside: Node
) -> None:
    portmap, weft = "/usr/lib/cni/portmap", "/opt/cni/bin/weft"
    if not Path(portmap).exists():
        pytest.skip("containernetworking-plugins is not installed")
    conf: dict[str, object] = {"cniVersion": "0.3.0", "name": "weft", "type": "weft"}
    ports = [{"containerPort": 80, "protocol": "tcp", "hostPort": 30871}]
    exposing: dict[str, object] = {
        "cniVersion": "0.3.0",
        "name": "osvc-portmap",
        "type": "portmap",
        "snat": True,
        "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": ports},
    }
    result = executed(beside, weft, "ADD", conf)
    executed(beside, portmap, "ADD", {**exposing, "prevResult": result})

    def reached() -> str:
        return traffic.refusal(staged[1].outside, "/run/netns/beside", NODE, 30871, 80)

    assert calls.call(beside, reached) == ""
    assert executed(beside, portmap, "DEL", exposing) == {}
    assert executed(beside, weft, "DEL", conf) == {}


def test_the_ipam_that_ecs_names_is_refused_by_name_and_its_del_succeeds(beside: Node) -> None:
    ipam = {"type": "ecs-ipam", "ipv4-subnet": "169.254.172.0/22",
            "ipv4-routes": [{"dst": "169.254.170.2/32"}]}  # fmt: skip
    conf = {**PERSONAS["ecs"].conf, "cniVersion": "0.3.0", "name": "network-name"}
    answer = executed(beside, "/opt/cni/bin/weft", "ADD", {**conf, "ipam": ipam})
    assert answer["code"] == 2
    assert "ipam.type" in str(answer["msg"])
    assert executed(beside, "/opt/cni/bin/weft", "DEL", {**conf, "ipam": ipam}) == {}
