"""Entering and recognising network namespaces."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from namespace_fixture import new_namespace, on_a_node

from weft.kernel import links, rtnetlink, sysctl
from weft.kernel.namespaces import entered, identity, is_network_namespace, own
from weft.model.errors import KernelRefused


@on_a_node
def test_a_namespace_is_recognised_by_descriptor() -> None:
    one, other = new_namespace(), new_namespace()
    assert is_network_namespace(one)
    assert identity(one) == identity(os.dup(one))
    assert len({identity(one), identity(other), own()}) == 3


def test_no_other_file_passes_for_a_network_namespace(tmp_path: Path) -> None:
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    os.mkfifo(fifo)
    plain.write_text("x")
    for path in (fifo, plain, tmp_path, "/dev/null", "/proc/self/ns/uts", "/proc/self/ns/mnt"):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert not is_network_namespace(fd), path
        finally:
            os.close(fd)
    assert not is_network_namespace(99_999)


@on_a_node
def test_the_thread_is_home_again_also_after_an_error() -> None:
    pod, home = new_namespace(), own()
    with pytest.raises(ZeroDivisionError), entered(pod):
        assert own() == identity(pod)
        raise ZeroDivisionError
    assert own() == home


@on_a_node
def test_what_is_no_namespace_is_refused_and_the_thread_stays_home() -> None:
    home = own()
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    with pytest.raises(KernelRefused, match="no network namespace"), entered(fd):
        pass
    assert own() == home


@on_a_node
def test_entering_leaks_no_descriptor() -> None:
    pod = new_namespace()
    before = os.listdir("/proc/self/fd")
    for _ in range(50):
        with entered(pod):
            pass
    assert os.listdir("/proc/self/fd") == before


@on_a_node
def test_a_socket_stays_in_the_namespace_it_was_made_in() -> None:
    pod = new_namespace()
    with entered(pod):
        inside = rtnetlink.open_socket()
    outside = rtnetlink.open_socket()
    ends = links.End("wfa", b"\2\0\0\0\0\1", 1500), links.End("eth0", b"\2\0\0\0\0\2", 1500)
    outside.transact([links.create_veth(ends[0], 7, ends[1], pod)])
    assert rtnetlink.find_link(inside, "eth0") is not None
    assert rtnetlink.find_link(outside, "eth0") is None


@on_a_node
def test_sysctl_files_are_those_of_the_namespace_entered() -> None:
    pod = new_namespace()
    path = "net/ipv4/ip_forward"
    before = sysctl.read(path)
    with entered(pod):
        assert sysctl.write([sysctl.message(path, "1")]) == []
        assert sysctl.read(path) == "1"
    assert sysctl.read(path) == before == "0"


@on_a_node
def test_a_refused_sysctl_is_told_and_the_others_are_written() -> None:
    messages = [
        sysctl.message("net/ipv4/conf/nosuch/rp_filter", "0"),
        sysctl.message("net/ipv4/ip_forward", "1"),
        sysctl.message("net/../net/ipv4/ip_forward", "0"),
        sysctl.message("net/ipv4/ip_forward", "many"),
    ]
    assert [at for at, _ in sysctl.write(messages)] == [0, 2, 3]
    assert sysctl.read("net/ipv4/ip_forward") == "1"
    assert sysctl.read("net/ipv4/conf/nosuch/rp_filter") is None


class _Overtaken(sysctl.Files):
    """Something happens between opening a file and reading it."""

    def __init__(self, act: Callable[[int], object]) -> None:
        super().__init__()
        self._act = act

    def _open(self, path: bytes, flags: int) -> int:
        fd = super()._open(path, flags)
        self._act(fd)
        return fd


@on_a_node
def test_a_link_that_goes_while_its_sysctl_is_read_has_none() -> None:
    subprocess.run(["ip", "link", "add", "gone0", "type", "veth", "peer", "gone1"], check=True)
    delete = ["ip", "link", "del", "gone0"]
    files = _Overtaken(lambda fd: subprocess.run(delete, check=True))
    assert files.read("net/ipv4/conf/gone0/rp_filter") is None


@on_a_node
def test_a_sysctl_that_cannot_be_read_is_an_error_of_the_kernel() -> None:
    other = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    files = _Overtaken(lambda fd: os.dup2(other, fd))
    with pytest.raises(KernelRefused, match=r"read the sysctl net/ipv4/ip_forward: EISDIR"):
        files.read("net/ipv4/ip_forward")


@on_a_node
def test_files_stay_those_of_the_namespace_they_were_first_used_in() -> None:
    pod, files = new_namespace(), sysctl.Files()
    path = "net/ipv4/conf/lo/rp_filter"
    with entered(pod):
        assert files.read(path) is not None
    assert files.write([sysctl.message(path, "2")]) == []
    with entered(pod):
        assert sysctl.read(path) == "2"
    assert sysctl.read(path) != "2"
    before = len(os.listdir("/proc/self/fd"))
    files.close()
    assert len(os.listdir("/proc/self/fd")) < before
