"""A real runtime: containerd with `ctr run --cni` on a machine where `./dev up` has run."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import write_image
from machines import Machine, machine

IMAGE = "docker.io/library/weft-test:1"
RUN = ("ctr", "run", "--cni", "--snapshotter", "native")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Machine]:
    archive = tmp_path / "image.tar"
    write_image(archive, IMAGE, Path(shutil.which("busybox") or "/bin/busybox"))
    with machine("weft-ctr") as made:
        assert made.dev("up").returncode == 0
        daemon = made.popen(["sh", "-c", "exec containerd >/run/containerd.log 2>&1"])
        try:
            wait_for(made, ["ctr", "version"])
            good(made, "ctr", "image", "import", "--snapshotter", "native", str(archive))
            yield made
        finally:
            daemon.terminate()
            daemon.communicate(timeout=20)


def wait_for(box: Machine, argv: list[str]) -> None:
    deadline = time.monotonic() + 20
    while box.run(argv).returncode != 0:
        assert time.monotonic() < deadline, box.run(["cat", "/run/containerd.log"]).stdout
        time.sleep(0.1)


def good(box: Machine, *argv: str) -> str:
    done: subprocess.CompletedProcess[str] = box.run(argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def host_links(box: Machine) -> set[str]:
    names = good(box, "ls", "/sys/class/net").split()
    return {name for name in names if name.startswith("wf")}


def test_container_of_containerd_has_addresses_routes_and_loopback(box: Machine) -> None:
    links = host_links(box)
    script = "/bin/busybox ip address; /bin/busybox ip route; /bin/busybox ip -6 route"
    told = good(box, *RUN, "--rm", IMAGE, "one", "/bin/busybox", "sh", "-c", script)
    assert "inet 127.0.0.1/8" in told
    assert "/32 scope global eth0" in told
    assert "/128 scope global" in told
    assert "default via 169.254.1.1" in told
    assert host_links(box) == links


def test_container_of_containerd_reaches_the_demo_and_is_shown(box: Machine) -> None:
    good(box, *RUN, "--detach", IMAGE, "two", "/bin/busybox", "sleep", "600")
    shown = good(box, "ip", "netns", "exec", "weft-demo-a", "ip", "-o", "-4", "address")
    address = next(line.split()[3].split("/")[0] for line in shown.splitlines() if "eth0" in line)
    inside = ("ctr", "task", "exec", "--exec-id", "probe", "two", "/bin/busybox")
    good(box, *inside, "ping", "-c", "1", "-W", "3", address)
    assert "two" in good(box, "weft", "get", "attachments")
    refused = box.dev("down")
    assert refused.returncode == 1
    assert "two" in refused.stderr
    good(box, "ctr", "task", "kill", "--signal", "KILL", "two")
