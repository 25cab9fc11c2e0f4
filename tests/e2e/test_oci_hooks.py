"""`weft oci-hook` under runtimes that know no CNI: runc and crun as Debian has them, and podman's
directory of hooks.

The page docs/oci-hooks.md is what is run: its configuration, and its commands in their order. Every
test ends with the node compared to what it was before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance import LAUNCHER, Host, ask, host_link
from weft.lab.nodes import CLEAN_PATH

PAGE = Path(__file__).parents[2] / "docs" / "oci-hooks.md"
RUNTIMES = ("runc", "crun")
ROOT = "/run/oci-state"
BUNDLES = "/run/bundles"
BUSYBOX = "/bin/busybox"
SLEEP = (BUSYBOX, "sleep", "600")
SERVER = (BUSYBOX, "nc", "-ll", "-p", "8000", "-e", BUSYBOX, "echo", "hello")


def page_block(kind: str, number: int = 0) -> str:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[
        number
    ]


def hook(*options: str) -> dict[str, Any]:
    return {"path": LAUNCHER, "args": ["weft", "oci-hook", *options]}


class Runtime:
    """An OCI runtime on the node."""

    def __init__(self, host: Host, name: str = "runc") -> None:
        self.host = host
        self.name = name

    def bundle(
        self,
        name: str,
        *args: str,
        annotations: dict[str, str] | None = None,
        hooks: list[dict[str, Any]] | None = None,
        stage: str = "createRuntime",
    ) -> None:
        """A bundle of busybox; by default with the hook of the page."""
        place = self.host.node.path(BUNDLES) / name
        (place / "rootfs" / "proc").mkdir(parents=True)
        (place / "rootfs" / "dev").mkdir()
        (place / "rootfs" / "bin").mkdir()
        shutil.copy(BUSYBOX, place / "rootfs" / "bin" / "busybox")
        config = json.loads(page_block("json"))
        config["process"]["args"] = list(args or SLEEP)
        config["annotations"] = annotations or {}
        config["hooks"] = dict.fromkeys((stage, "poststop"), hooks or [hook()])
        config["linux"]["cgroupsPath"] = f"/weft-oci-{os.getpid()}/{name}"
        (place / "config.json").write_text(json.dumps(config))

    def argv(self, *words: str) -> list[str]:
        return [self.name, "--root", ROOT, *words]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.sh(" ".join([*self.argv(*words), "</dev/null"]))

    def sh(self, line: str) -> subprocess.CompletedProcess[str]:
        # a detached container would hold a pipe open
        done = self.host.node.run(["sh", "-c", f"({line}) >/run/said 2>&1"])
        said = self.host.node.path("/run/said").read_text()
        return subprocess.CompletedProcess(line, done.returncode, said, "")

    def good(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}"
        return done.stdout

    def start(self, name: str) -> None:
        self.good("run", "--detach", "--bundle", f"{BUNDLES}/{name}", name)

    def pid(self, name: str) -> int:
        return int(json.loads(self.good("state", name))["pid"])


@pytest.fixture
def runc(host: Host) -> Iterator[Runtime]:
    """runc; containers and bundles are given back."""
    runtime = Runtime(host)
    yield runtime
    for name in RUNTIMES:
        for each in host.node.path(ROOT).glob("*"):
            host.node.run([name, "--root", ROOT, "delete", "--force", each.name])
    for place in (BUNDLES, ROOT):
        shutil.rmtree(host.node.path(place), ignore_errors=True)
    host.node.path("/run/said").unlink(missing_ok=True)
    for each in Path("/sys/fs/cgroup").glob(f"*/weft-oci-{os.getpid()}"):
        for part in sorted(each.rglob("*"), reverse=True):
            if part.is_dir():
                part.rmdir()
        each.rmdir()


def attachments(host: Host) -> dict[tuple[str, str], dict[str, Any]]:
    """By container and interface."""
    found = json.loads(host.weft("get", "attachments", "-o", "json"))
    items = found.get("items", [found])
    return {(each["spec"]["container"], each["spec"]["ifname"]): each for each in items}


def wait_for(what: Callable[[], bool], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(host: Host, *containers: str) -> None:
    """No link of theirs is left; what the agent holds is compared at the end of each test."""
    assert not {host_link(each) for each in containers} & host.pod_links


def answers(host: Host, address: str, port: int) -> bool:
    done = host.node.run([BUSYBOX, "nc", "-w", "5", address, str(port)])
    return done.stdout == b"hello\n"


def test_page_is_a_whole_bundle_and_its_commands_work(host: Host, runc: Runtime) -> None:
    base = host.node.path("/run/page")
    base.mkdir()
    (base / "config.json").write_text(page_block("json"))
    weft = f"""weft() {{ {sys.executable} -m weft.main "$@"; }}\n"""
    lines = [line.removeprefix("# ") for line in page_block("console").splitlines()]
    script = weft + "cd /run/page; set -ex\n" + "\n".join(lines)
    environment = {"PATH": CLEAN_PATH, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = host.node.run(["sh", "-c", script], env=environment)
    shutil.rmtree(base)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    assert "has had the hooks already" in said
    assert "inet 10.244.7.7/32" in said
    assert "8080" in said and "8081" in said
    gone(host, "web")


def test_container_has_what_its_annotations_say_and_reaches_others(
    host: Host, runc: Runtime
) -> None:
    other = host.add("other").addresses[0]
    serving = host.node.popen([*SERVER], pod="other", stdin=subprocess.DEVNULL)
    wishes = {
        "weft.dev/ips": "10.244.0.200",
        "weft.dev/mac": "0a:58:0a:f4:00:c8",
        "weft.dev/ports": "127.0.0.1:8080:8000",
        "weft.dev/labels": "app:web",
        "kubernetes.io/egress-bandwidth": "10M",
    }
    try:
        runc.bundle("c1", *SERVER, annotations=wishes)
        runc.good("create", "--bundle", f"{BUNDLES}/c1", "c1")
        made = attachments(host)["c1", "eth0"]
        runc.good("start", "c1")
        assert made["status"]["addresses"][0] == "10.244.0.200"
        assert made["status"]["mac"] == "0a:58:0a:f4:00:c8"
        assert made["status"]["egressRate"] == 10_000_000
        assert made["metadata"]["labels"] == {"app": "web"}
        assert made["spec"]["sandbox"] == f"/proc/{runc.pid('c1')}/ns/net"
        for address, port in (("10.244.0.200", 8000), ("127.0.0.1", 8080)):
            wait_for(lambda at=(address, port): answers(host, *at))  # type: ignore[misc]
        asked = runc.good("exec", "c1", BUSYBOX, "nc", "-w", "5", other, "8000")
        assert asked == "hello\n"
        runc.good("delete", "--force", "c1")
        assert ("c1", "eth0") not in attachments(host)
    finally:
        serving.kill()
        serving.wait()
        host.drop("other")


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_of_debian_at_both_names_of_the_stage(
    host: Host, runc: Runtime, name: str
) -> None:
    runtime = Runtime(host, name)
    for stage in ("createRuntime", "prestart"):
        bundle = f"{name}-{stage}"
        runtime.bundle(bundle, BUSYBOX, "ip", "address", "show", "eth0", stage=stage)
        said = runtime.good("run", "--bundle", f"{BUNDLES}/{bundle}", bundle)
        assert "/32 scope global eth0" in said and "state UP" not in said.partition("eth0")[0]
    gone(host, f"{name}-createRuntime", f"{name}-prestart")


def test_creation_fails_with_the_agents_words_and_leaves_nothing(host: Host, runc: Runtime) -> None:
    runc.bundle("first", annotations={"weft.dev/ports": "8080:80"})
    runc.start("first")
    refused = {
        "second": ({"weft.dev/ports": "8080:81"}, "first"),
        "third": ({"weft.dev/ips": "10.9.9.9"}, "10.9.9.9"),
        "fourth": ({"weft.dev/port": "1:1"}, "did you mean 'weft.dev/ports'?"),
        "fifth": ({"weft.dev/network": "blue"}, "is not the network of this hook, which is weft"),
    }
    for name, (wishes, words) in refused.items():
        runc.bundle(name, annotations=wishes)
        done = runc("run", "--detach", "--bundle", f"{BUNDLES}/{name}", name)
        assert done.returncode != 0
        assert "weft: " in done.stdout and words in done.stdout, done.stdout
        assert host_link(name) not in host.pod_links
    assert set(attachments(host)) == {("first", "eth0")}
    runc.good("delete", "--force", "first")


def test_second_interface_and_a_list_with_others_plugins(host: Host, runc: Runtime) -> None:
    conf = host.node.path("/run/lists")
    conf.mkdir()
    blue = {"name": "blue", "cniVersion": "1.0.0", "plugins": [{"type": "weft"}]}
    (conf / "blue.conflist").write_text(json.dumps(blue))
    blue["plugins"].append({"type": "portmap"})  # type: ignore[attr-defined]
    (conf / "chain.conflist").write_text(json.dumps(blue))
    try:
        second = hook("--network", "blue", "--conf", "/run/lists/blue.conflist", "--ifname", "eth1")
        runc.bundle("two", hooks=[hook(), second])
        runc.start("two")
        assert set(attachments(host)) == {("two", "eth0"), ("two", "eth1")}
        (conf / "blue.conflist").unlink()  # to detach, the name is enough
        runc.good("delete", "--force", "two")
        assert not attachments(host)
        chain = hook("--conf", "/run/lists/chain.conflist", "--ifname", "eth1")
        runc.bundle("three", hooks=[hook(), chain])
        done = runc("run", "--detach", "--bundle", f"{BUNDLES}/three", "three")
        assert done.returncode != 0 and "has the plugin portmap" in done.stdout
        runc("delete", "--force", "three")
        wait_for(lambda: not attachments(host))
    finally:
        shutil.rmtree(conf)


def test_what_was_killed_is_given_back_without_its_hook(host: Host, runc: Runtime) -> None:
    for name in ("killed", "forgotten", "lives"):
        runc.bundle(name)
        runc.start(name)
    os.kill(runc.pid("killed"), signal.SIGKILL)
    os.kill(runc.pid("forgotten"), signal.SIGKILL)
    shutil.rmtree(host.node.path(ROOT) / "forgotten")
    runc.bundle("cut")  # its runtime is killed while the hook waits for the agent
    os.kill(host.pid, signal.SIGSTOP)
    words = runc.argv("create", "--bundle", f"{BUNDLES}/cut", "cut")
    creating = host.node.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.2)  # in which it comes to its hook; killed earlier it leaves nothing either
    creating.kill()
    creating.wait()
    os.kill(host.pid, signal.SIGCONT)
    wait_for(lambda: set(attachments(host)) == {("lives", "eth0")})
    assert "no poststop hook came" in host.weft("get", "events")
    runc.good("delete", "killed")  # its hook comes after all
    host.end()  # and now with nobody there who could notice
    os.kill(runc.pid("lives"), signal.SIGKILL)
    wait_for(lambda: host_link("lives") not in host.pod_links)
    host.start()
    gone(host, "killed", "forgotten", "cut", "lives")


def test_gc_and_a_lost_journal_know_a_hooks_container(host: Host, runc: Runtime) -> None:
    runc.bundle("mine")
    runc.start("mine")
    host.add("theirs")
    assert host.send(ask("GC", **{"cni.dev/valid-attachments": []})).status == 0
    assert set(attachments(host)) == {("mine", "eth0")}
    host.unmake(["theirs"])
    host.end()
    for each in host.node.path("/run/weft").glob("journal.db*"):
        each.unlink()
    host.start()  # all that is known now is what the link's record says
    runc.good("exec", "mine", BUSYBOX, "true")
    assert host.send(ask("GC", **{"cni.dev/valid-attachments": []})).status == 0
    assert set(attachments(host)) == {("mine", "eth0")}
    runc.good("delete", "--force", "mine")
    gone(host, "mine")


def test_namespaces_that_are_not_the_containers_own(host: Host, runc: Runtime) -> None:
    host.make(["shared"])
    for name in ("node", "first", "second"):
        runc.bundle(name)
        place = host.node.path(BUNDLES) / name / "config.json"
        config = json.loads(place.read_text())
        kinds = config["linux"]["namespaces"]
        kinds[:] = [each for each in kinds if each["type"] != "network"]
        if name != "node":
            kinds.append({"type": "network", "path": "/run/netns/shared"})
        place.write_text(json.dumps(config))
    refused = runc("run", "--detach", "--bundle", f"{BUNDLES}/node", "node")
    assert refused.returncode != 0
    assert "is the node's own network namespace" in refused.stdout
    runc.start("first")
    refused = runc("run", "--detach", "--bundle", f"{BUNDLES}/second", "second")
    assert refused.returncode != 0 and "eth0" in refused.stdout
    assert set(attachments(host)) == {("first", "eth0")}
    os.kill(runc.pid("first"), signal.SIGKILL)
    time.sleep(0.1)
    assert host_link("first") in host.pod_links  # the namespace lives on, and so does its link
    runc.good("delete", "first")
    gone(host, "first", "second", "node")
    host.unmake(["shared"])


def test_without_an_agent_nothing_is_created_and_everything_deleted(
    host: Host, runc: Runtime
) -> None:
    runc.bundle("old")
    runc.bundle("new")
    runc.start("old")
    host.end()
    done = runc("run", "--detach", "--bundle", f"{BUNDLES}/new", "new")
    assert done.returncode != 0 and "the agent does not answer" in done.stdout
    runc.good("delete", "--force", "old")
    assert host_link("old") not in host.pod_links
    queued = [each.name for each in host.node.path("/run/weft/queue").iterdir()]
    assert len(queued) == 2  # of both: what was never attached cannot be told without an agent
    host.start()
    gone(host, "old", "new")


@pytest.mark.matrix(id="OCI hooks side by side", full=200, reduced=20)
def test_containers_beside_each_other(host: Host, runc: Runtime, count: int) -> None:
    names = [f"many-{number}" for number in range(count)]
    for name in names:
        runc.bundle(name, BUSYBOX, "ip", "-4", "-o", "address", "show", "eth0")
    started = [
        host.node.popen(
            runc.argv("run", "--bundle", f"{BUNDLES}/{name}", name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name in names
    ]
    said = [child.communicate(timeout=120)[0].decode() for child in started]
    assert [child.returncode for child in started] == [0] * count, said
    assert len({text.split()[3] for text in said}) == count  # an address each
    gone(host, *names)


def test_podman_calls_weft_for_containers_that_name_the_network(host: Host, runc: Runtime) -> None:
    place = host.node.path("/run/hooks.d")
    place.mkdir()
    (place / "weft.json").write_text(host.weft("oci-hook", "hooks-d"))
    runc.bundle("podman")
    podman = (
        "podman --root /run/podman-root --runroot /run/podman-run --storage-driver vfs"
        " --cgroup-manager cgroupfs --runtime runc --events-backend file"
        " --hooks-dir /run/hooks.d --network-config-dir /run/podman-networks"
    )
    limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
    run = f"{podman} run --rm {limits} --network none"
    image = f"--rootfs {BUNDLES}/podman/rootfs {BUSYBOX} ip -4 -o address"
    try:
        with_hook = runc.sh(f"{run} --annotation weft.dev/network=weft {image}")
        assert with_hook.returncode == 0, with_hook.stdout
        assert "/32 scope global eth0" in with_hook.stdout
        without = runc.sh(f"{run} {image}")
        assert without.returncode == 0 and "eth0" not in without.stdout, without.stdout
        gone(host)
    finally:
        for each in ("hooks.d", "podman-root", "podman-run", "podman-networks"):
            shutil.rmtree(host.node.path(f"/run/{each}"), ignore_errors=True)
