"""Real runtimes on a machine on which `weft install` has run: containerd's CRI with Debian's own
configuration, `ctr run --cni`, and podman with two networks.

A network of somebody else's stands before weft's when the story begins.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from images import write_image
from machines import Machine, machine
from test_host_ports import reach

import former
from cri import TCP, Runtime
from weft.cni.install import DEFAULT_CONFLIST

WEFT = str(Path(sys.executable).with_name("weft"))
NETWORKS = "/etc/cni/net.d"
SHADOW = json.dumps(
    {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "bridge", "bridge": "other0"}]}
)
PAUSE = "registry.k8s.io/pause:3.6"  # what Debian's containerd starts sandboxes from
IMAGE = "docker.io/library/weft-test:1"
UNPRIVILEGED = """#!/bin/sh
# runc without the right to be spared by the kernel's out-of-memory killer, which this machine lacks
before=
for each; do
    score='s/"oomScoreAdj":-*[0-9]*/"oomScoreAdj":0/'
    [ "$before" != --bundle ] || sed -i "$score" "$each/config.json"
    before=$each
done
exec /usr/sbin/runc "$@"
"""


class Box:
    """The machine, and what `weft install` said on the way."""

    def __init__(self, made: Machine) -> None:
        self.machine = made
        self.said: dict[str, subprocess.CompletedProcess[str]] = {}
        self.early: list[str] = []
        self._agent = ExitStack()

    def path(self, inside: str) -> Path:
        return self.machine.node.path(inside)

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        place = self.path(inside)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def weft(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run([WEFT, *arguments])

    def good(self, *argv: str) -> str:
        done = self.machine.run(argv)
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout

    def log(self) -> str:
        place = self.path("/run/containerd.log")
        lines = place.read_text().splitlines() if place.exists() else []
        return "\n".join(line for line in lines if "level=error" in line)[-4000:]

    def links(self) -> set[str]:
        names = self.good("ls", "/sys/class/net").split()
        return {name for name in names if name.startswith("wf")}

    def networks(self) -> list[str]:
        return sorted(each.name for each in self.path(NETWORKS).glob("*.conflist*"))

    def attachments(self) -> list[dict[str, Any]]:
        found = json.loads(self.good(WEFT, "get", "attachments", "-o", "json"))
        return [found] if found["kind"] == "Attachment" else list(found["items"])

    def start_agent(self) -> None:
        """Let an agent serve, another one if one does."""
        self._agent.close()
        _begin(self._agent, self, WEFT, "agent")
        self.wait_for(lambda: self.weft("status").returncode == 0)

    def end_agent(self) -> None:
        self._agent.close()

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)


def _begin(stack: ExitStack, box: Box, *argv: str) -> None:
    log = f"/run/{Path(argv[0]).name}.log"
    child = box.machine.popen(["sh", "-c", 'exec "$@" >"$0" 2>&1', log, *argv])

    def end() -> None:
        child.terminate()
        child.communicate(timeout=30)

    stack.callback(end)


def _import(box: Box, archive: Path) -> None:
    for namespace, name, command in (
        ("k8s.io", PAUSE, ("/bin/busybox", "sleep", "600")),
        ("default", IMAGE, ()),
    ):
        write_image(archive, name, Path(shutil.which("busybox") or "/bin/busybox"), *command)
        kind = "overlayfs" if namespace == "k8s.io" else "native"
        box.good("ctr", "-n", namespace, "image", "import", "--snapshotter", kind, str(archive))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """containerd and the agent run, and `weft install` was tried at three moments."""
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    with machine("weft-rt") as made, ExitStack() as stack:
        box = Box(made)
        box.write(f"{NETWORKS}/05-other.conflist", SHADOW)
        box.write("/usr/local/sbin/runc", UNPRIVILEGED, 0o755)
        # layers of containers cannot lie on the overlay that is this machine's /var/lib
        box.good("mkdir", "/var/lib/containerd")
        box.good("mount", "-t", "tmpfs", "tmpfs", "/var/lib/containerd")
        _begin(stack, box, "containerd")
        box.wait_for(lambda: made.run(["ctr", "version"]).returncode == 0)
        _import(box, archive)
        box.said["early"] = box.weft("install", "--take-over")
        box.early = box.networks()
        stack.callback(box.end_agent)
        box.start_agent()
        box.said["shadowed"] = box.weft("install")
        box.said["whole"] = box.weft("install", "--take-over", "-o", "json")
        yield box


def test_network_waits_for_the_agent_and_success_for_the_shadow_to_go(box: Box) -> None:
    early, shadowed = box.said["early"], box.said["shadowed"]
    assert (early.returncode, "the agent would refuse containers" in early.stderr) == (1, True)
    assert f"waiting: {NETWORKS}/10-weft.conflist" in early.stderr
    assert box.early == ["05-other.conflist"]
    assert shadowed.returncode == 1
    assert f"{NETWORKS}/05-other.conflist comes before 10-weft.conflist" in shadowed.stderr
    whole = json.loads(box.said["whole"].stdout)
    assert (whole["outcome"], whole["good"]) == ("installed", True)
    told = {each["runtime"]["name"]: each["choice"]["taken"] for each in whole["runtimes"]}
    assert told["containerd"] == ["10-weft.conflist"]
    assert box.path("/usr/lib/cni/weft").read_bytes() == box.path("/opt/cni/bin/weft").read_bytes()
    doctor = json.loads(box.weft("doctor", "-o", "json").stdout)["items"]
    assert {each["level"] for each in doctor if each["id"] in ("conflist", "launcher")} == {"ok"}


def test_sandboxes_of_containerds_cri_live_and_go(box: Box) -> None:
    cri = Runtime(str(box.path("/run/containerd/containerd.sock")))
    box.wait_for(lambda: cri.conditions()["NetworkReady"][0])
    before = box.links()
    sandbox = cri.run_sandbox("one", ports=((TCP, 80, 8080),), logs="/run/pods/one")
    (attached,) = box.attachments()
    state, addresses = cri.addresses(sandbox)
    assert state == 0
    assert addresses == [each.split("/")[0] for each in attached["status"]["addresses"]]
    assert len(addresses) == 2
    assert attached["spec"]["pod"] == "default/one"
    assert "8080" in box.good(WEFT, "get", "ports")
    cri.stop(sandbox)
    assert (box.links(), box.attachments()) == (before, [])
    assert cri.addresses(sandbox)[0] != 0
    cri.remove(sandbox)


def test_container_of_ctr_runs_in_the_network(box: Box) -> None:
    before = box.links()
    run = ("ctr", "run", "--cni", "--snapshotter", "native", "--rm", IMAGE, "two")
    told = box.good(*run, "/bin/busybox", "ip", "address")
    assert "/32 scope global eth0" in told
    assert box.links() == before


PODMAN = """[network]
network_backend = "cni"
default_network = "weft"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
lock_type = "file"
events_logger = "file"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
SECOND = DEFAULT_CONFLIST.replace(b'"name": "weft"', b'"name": "weft-second"')


def test_container_of_podman_has_two_networks_and_published_ports(box: Box, tmp_path: Path) -> None:
    box.write("/etc/containers/containers.conf.d/weft.conf", PODMAN)
    box.write(f"{NETWORKS}/20-second.conflist", SECOND.decode())
    told = {
        each["runtime"]["name"]: each
        for each in json.loads(box.weft("install", "-o", "json").stdout)["runtimes"]
    }
    assert told["podman"]["choice"]["taken"] == ["10-weft.conflist"]
    archive = tmp_path / "image.tar"
    write_image(archive, IMAGE, Path(shutil.which("busybox") or "/bin/busybox"))
    podman = ("podman", "--root", "/run/podman-root", "--storage-driver", "vfs")
    box.good(*podman, "load", "--input", str(archive))
    before = box.links()
    script = "echo published >/index.html; exec /bin/busybox httpd -f -p 80 -h /"
    wishes = ("--network", "weft,weft-second", "--publish", "8081:80", "--publish", "5300:53/udp")
    server = (IMAGE, "/bin/busybox", "sh", "-c", script)
    box.good(*podman, "run", "--detach", "--name", "three", *wishes, *server)
    assert len(box.links() - before) == 2
    addresses = box.good(*podman, "exec", "three", "/bin/busybox", "ip", "-o", "-4", "address")
    assert {line.split()[1] for line in addresses.splitlines()} == {"lo", "eth0", "eth1"}
    page = ("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/")
    box.wait_for(lambda: box.machine.run(page).stdout == "published\n")
    box.start_agent()  # which finds the port bound by podman, and that is nobody else
    assert "PortTwice" not in box.good(WEFT, "get", "events")
    ports = box.good(WEFT, "get", "ports")
    assert "8081" in ports and "5300" in ports
    box.good(*podman, "rm", "--force", "--time", "0", "three")
    alone = box.good(*podman, "run", "--rm", IMAGE, "/bin/busybox", "ip", "address")
    assert "/32 scope global eth0" in alone and "eth1" not in alone
    assert box.links() == before
    box.path(f"{NETWORKS}/20-second.conflist").unlink()


def test_sandbox_of_the_bridge_moves_and_ends_by_the_del_that_containerd_asks_of_weft(
    box: Box,
) -> None:
    cri = Runtime(str(box.path("/run/containerd/containerd.sock")))
    box.write(f"{NETWORKS}/04-before.conflist", former.conflist().decode())
    sandbox = cri.run_sandbox("old", ports=((TCP, 80, 8082),), logs="/run/pods/old")
    _, addresses = cri.addresses(sandbox)
    assert all(each.startswith(("10.22.", "fd22:")) for each in addresses)
    assert "`weft import`" in box.good(WEFT, "install", "--take-over")
    assert "8082" in box.good(WEFT, "import")
    (attached,) = box.attachments()
    assert attached["status"]["state"] == "imported"
    assert sorted(attached["status"]["addresses"]) == sorted(addresses)
    assert attached["spec"]["pod"] == "default/old"
    young = cri.run_sandbox("young", logs="/run/pods/young")
    _, others = cri.addresses(young)
    # /var/run is a link to the /run of whoever follows it
    places = {
        each["spec"]["container"]: box.path(each["spec"]["sandbox"].removeprefix("/var"))
        for each in box.attachments()
    }
    here, there = places[sandbox], places[young]
    for address in addresses:
        assert reach(there, address, 80, here, 80).answered
    for address in others:
        assert reach(here, address, 80, there, 80).answered
    for each in (sandbox, young):
        cri.stop(each)
        cri.remove(each)
    assert box.attachments() == []
    assert "old" not in box.good(WEFT, "get", "ports")
    assert "8082" not in box.good("iptables-save", "-t", "nat")
    assert list(box.path(f"{former.NETWORKS}/former").glob("1*")) == []
    assert [each.name for each in box.path(former.RESULTS).glob("former-*")] == []
    box.good("rm", f"{NETWORKS}/04-before.conflist.before-weft")


def test_uninstall_waits_for_the_last_container_and_puts_the_other_network_back(box: Box) -> None:
    cri = Runtime(str(box.path("/run/containerd/containerd.sock")))
    sandbox = cri.run_sandbox("last", logs="/run/pods/last")
    refused = box.weft("uninstall")
    assert refused.returncode == 1
    assert "containers are attached (1)" in refused.stderr
    cri.stop(sandbox)
    cri.remove(sandbox)
    assert box.weft("uninstall").returncode == 0
    assert box.networks() == ["05-other.conflist"]
    assert box.path(f"{NETWORKS}/05-other.conflist").read_text() == SHADOW
    assert not box.path("/usr/lib/cni/weft").exists()
    assert not box.path("/opt/cni/bin").exists()
    assert box.weft("install", "--take-over").returncode == 0
