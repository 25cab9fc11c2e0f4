"""What once went wrong in the agent, each case as it was found."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from weft.cni.install import DEFAULT_CONFLIST
from weft.lab import calls, cluster
from weft.lab.nodes import Node
from weft.lab.runtime import Attachment
from weft.model.attachment import AttachmentKey
from weft.wire.local import Kind, encode_frame

SOCKET = "/run/weft/agent.sock"


def ip(node: Node, *arguments: str, pod: str | None = None) -> str:
    done = node.run(["ip", *arguments], pod=pod)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_a_foreign_link_under_our_name_fails_add_but_never_del(
    agent_node: Node, bare_pod: Callable[[str], Path]
) -> None:
    bare_pod("p")
    runtime = cluster.runtime(agent_node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    name = AttachmentKey(runtime.network, "c1", "eth0").host_link
    ip(agent_node, "link", "add", name, "type", "bridge")
    assert "did not make" in runtime.add(wanted).failure
    assert runtime.delete(wanted).is_good
    assert name in ip(agent_node, "-br", "link")
    ip(agent_node, "link", "delete", name)
    assert runtime.add(wanted).is_good
    assert runtime.delete(wanted).is_good


def test_a_second_interface_leaves_the_first_ones_default_routes(
    agent_node: Node, bare_pod: Callable[[str], Path]
) -> None:
    bare_pod("p")
    runtime = cluster.runtime(agent_node)
    first = Attachment(container="c1", netns="/run/netns/p")
    second = Attachment(container="c1", netns="/run/netns/p", ifname="eth1")
    assert runtime.add(first).is_good
    before = [
        ip(agent_node, family, "route", "show", "default", pod="p") for family in ("-4", "-6")
    ]
    assert all("dev eth0" in routes for routes in before)
    added = runtime.add(second)
    assert added.is_good
    assert "routes" not in (added.result or {})
    assert runtime.check(first).is_good
    assert runtime.check(second).is_good
    assert runtime.delete(second).is_good
    assert before == [
        ip(agent_node, family, "route", "show", "default", pod="p") for family in ("-4", "-6")
    ]
    assert runtime.check(first).is_good


def test_a_namespace_with_the_inode_of_a_dead_one_gets_its_default_routes(
    agent_node: Node, bare_pod: Callable[[str], Path]
) -> None:
    bare_pod("p")
    runtime = cluster.runtime(agent_node)
    assert runtime.add(Attachment(container="dead", netns="/run/netns/p")).is_good
    ip(agent_node, "netns", "delete", "p")
    ip(agent_node, "netns", "add", "p")
    assert runtime.add(Attachment(container="new", netns="/run/netns/p")).is_good
    assert "dev eth0" in ip(agent_node, "route", "show", "default", pod="p")


def test_a_second_agent_touches_nothing_of_the_first(agent_node: Node) -> None:
    journal = agent_node.path("/run/weft/journal.db")
    before = journal.stat().st_ino
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = agent_node.run(cluster.agent_command(), env=environment)
    assert done.returncode == 1
    assert b"an agent is running" in done.stderr
    assert journal.stat().st_ino == before
    assert cluster.runtime(agent_node).status().is_good


ELSEWHERE = """
paths:
  socket: /run/other/agent.sock
  querySocket: /run/other-query/query.sock
  journal: /run/other/journal.db
  queue: /run/other/queue
  store: /var/lib/other/store.db
"""


def test_an_agent_with_paths_of_its_own_is_refused_beside_another(node: Node) -> None:
    """Each would take the other's rules for what somebody has left."""
    node.path("/etc/weft").mkdir(parents=True, exist_ok=True)
    node.path("/etc/weft/other.yaml").write_text(ELSEWHERE)
    command = [*cluster.agent_command(), "--config", "/etc/weft/other.yaml"]
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    pid = cluster.start_agent(node)
    for more in ([], ["--teardown"], ["--close-boot"]):
        done = node.run([*command, *more], env=environment)
        assert done.returncode == 1
        words = f"an agent is running in this network namespace: pid {pid}, `"
        assert words.encode() in done.stderr
        assert not node.path("/run/other/journal.db").exists()
    assert cluster.runtime(node).status().is_good
    os.kill(pid, signal.SIGKILL)  # nothing of it stands in the way
    second = node.popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        lines = iter(second.stderr.readline, b"")
        assert any(b"serving on /run/other/agent.sock" in line for line in lines)
    finally:
        second.kill()
        second.wait()
        second.stderr.close()


def test_a_program_of_anybodys_that_locks_the_namespace_keeps_no_agent_away(node: Node) -> None:
    line = (
        "import fcntl, os; os.setgroups([]); os.setuid(65534); f = os.open('/proc/self/ns/net', 0);"
        "os.set_inheritable(f, True); fcntl.flock(f, fcntl.LOCK_EX); print('locked', flush=True);"
        "os.execv('/bin/su', ['su'])"  # root's from here on, and waits for a password
    )
    taker = node.popen(
        [sys.executable, "-ISc", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert taker.stdout.readline() == b"locked\n"
        cluster.start_agent(node)
        assert cluster.runtime(node).status().is_good
        assert "NotAlone" in node.path(cluster.AGENT_LOG).read_text()
        assert taker.poll() is None
    finally:
        taker.kill()
        taker.wait()
        taker.stdin.close()
        taker.stdout.close()


def test_descriptors_that_a_peer_sends_do_not_pile_up(node: Node) -> None:
    pid = cluster.start_agent(node)

    def flood() -> int:
        spare = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(4)]
        before = len(os.listdir(f"/proc/{pid}/fd"))
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(SOCKET)
            for octet in encode_frame(Kind.CNI_REQUEST, bytes(200))[:-1]:
                socket.send_fds(peer, [bytes([octet])], spare)
            limit = time.monotonic() + 10
            unread = b"1"
            while any(unread) and time.monotonic() < limit:
                unread = fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4))
            assert not any(unread)
            return len(os.listdir(f"/proc/{pid}/fd")) - before

    assert calls.call(node, flood) <= 6  # the connection, its namespace, one read under way


def test_an_attachment_whose_link_died_while_no_agent_ran_is_forgotten(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    runtime = cluster.runtime(node)
    pods = {}
    for name in ("dies", "stays"):
        bare_pod(name)
        pods[name] = Attachment(container=name, netns=f"/run/netns/{name}")
        assert runtime.add(pods[name]).is_good
    os.kill(pid, signal.SIGKILL)
    ip(node, "netns", "delete", "dies")
    ip(node, "netns", "add", "dies")
    cluster.start_agent(node)
    assert runtime.check(pods["stays"]).is_good
    assert "no attachment" in runtime.check(pods["dies"]).failure
    assert runtime.delete(pods["dies"]).is_good


def test_pools_of_one_family_give_addresses_of_that_family(
    agent_node: Node, bare_pod: Callable[[str], Path]
) -> None:
    bare_pod("p")
    conflist = json.loads(DEFAULT_CONFLIST)
    conflist["plugins"][0]["pools"] = ["default-ipv4"]
    runtime = cluster.runtime(agent_node, json.dumps(conflist).encode())
    outcome = runtime.add(Attachment(container="c1", netns="/run/netns/p"))
    assert outcome.is_good, outcome.failure
    assert [":" in each["address"] for each in (outcome.result or {})["ips"]] == [False]


def _rename(node: Node, key: AttachmentKey) -> None:
    ip(node, "link", "set", key.host_link, "name", "stolen0")


@contextmanager
def _awake_later(pid: int) -> Iterator[None]:
    """Let a stopped agent go on once it has been asked something."""
    awake = Timer(0.5, os.kill, (pid, signal.SIGCONT))
    awake.start()
    try:
        yield
    finally:
        awake.join()


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_link_that_was_renamed_while_no_agent_ran_is_called_back(
    node: Node, bare_pod: Callable[[str], Path], journal: str
) -> None:
    pid = cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    key = AttachmentKey(runtime.network, "c1", "eth0")
    assert runtime.add(wanted).is_good
    os.kill(pid, signal.SIGKILL)
    _rename(node, key)
    if journal == "lost":
        for file in node.path("/run/weft").glob("journal.db*"):
            file.unlink()
    cluster.start_agent(node)
    assert key.host_link in ip(node, "-br", "link")
    assert runtime.check(wanted).is_good
    assert runtime.delete(wanted).is_good
    assert "stolen0" not in ip(node, "-br", "link")


def test_a_link_whose_name_was_taken_while_no_agent_ran_keeps_its_pods_addresses(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    runtime = cluster.runtime(node)
    pods = {name: Attachment(container=name, netns=f"/run/netns/{name}") for name in ("p", "q")}
    for name in pods:
        bare_pod(name)
    key = AttachmentKey(runtime.network, "p", "eth0")
    first = runtime.add(pods["p"])
    os.kill(pid, signal.SIGKILL)
    _rename(node, key)
    ip(node, "link", "add", key.host_link, "type", "bridge")
    cluster.start_agent(node)
    second = runtime.add(pods["q"])
    assert "LinkMisnamed" in node.path(cluster.AGENT_LOG).read_text()
    assert first.result and second.result
    given = [{ip["address"] for ip in each["ips"]} for each in (first.result, second.result)]
    assert not given[0] & given[1]
    assert runtime.delete(pods["p"]).is_good
    shown = ip(node, "-br", "link")
    assert "stolen0" not in shown
    assert key.host_link in shown
    ip(node, "link", "delete", key.host_link)
    assert runtime.delete(pods["q"]).is_good


def test_a_link_that_was_renamed_goes_with_its_attachment(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    key = AttachmentKey(runtime.network, "c1", "eth0")
    assert runtime.add(wanted).is_good
    os.kill(pid, signal.SIGSTOP)  # it hears of the other name and of the DEL in one turn
    try:
        _rename(node, key)
        ip(node, "link", "add", key.host_link, "type", "bridge")  # and the name is taken
        with _awake_later(pid):
            assert runtime.delete(wanted).is_good
    finally:
        os.kill(pid, signal.SIGCONT)
    shown = ip(node, "-br", "link")
    assert "stolen0" not in shown
    assert key.host_link in shown
    ip(node, "link", "delete", key.host_link)


def test_what_could_not_be_looked_at_is_looked_at_again(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    link = AttachmentKey(runtime.network, "c1", "eth0").host_link
    assert runtime.add(wanted).is_good
    log = node.path(cluster.AGENT_LOG)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))  # no socket can be opened
    try:
        ip(node, "link", "set", link, "mtu", "1300")
        assert node.run(["nft", "add", "table", "inet", "theirs"]).returncode == 0
        _wait(lambda: "reason=NotRepaired" in log.read_text(), 5.0)
        _wait(lambda: "reason=FirewallTrouble" in log.read_text(), 5.0)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    _wait(lambda: "mtu 1300" not in ip(node, "link", "show", link), 10.0)
    assert "Traceback" not in log.read_text()
    assert runtime.delete(wanted).is_good


def _wait(is_so: Callable[[], bool], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_a_socket_that_was_removed_is_made_again(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    assert runtime.add(wanted).is_good
    shutil.rmtree(node.path("/run/weft"))  # sockets, journal and all
    assert "does not answer" in runtime.status().failure
    _wait(lambda: runtime.status().is_good, 10.0)
    assert runtime.check(wanted).is_good
    names = {file.name for file in node.path("/run/weft").iterdir()}
    assert {"agent.sock", "add-timeout", "journal.db"} <= names
    assert node.path("/run/weft/agent.sock").stat().st_mode & 0o777 == 0o600
    assert runtime.delete(wanted).is_good


def test_a_node_whose_rules_were_taken_away_while_they_change_is_ready_at_once(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node, "ruleset: {protected: never}\n")
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    os.kill(pid, signal.SIGSTOP)  # it hears of the flush together with the ADD
    try:
        assert node.run(["nft", "delete", "table", "inet", "weft"]).returncode == 0
        with _awake_later(pid):
            first = runtime.add(wanted)  # claims a block, which changes the rules
    finally:
        os.kill(pid, signal.SIGCONT)
    assert first.is_good or runtime.add(wanted).is_good
    assert runtime.status().is_good
    log = node.path(cluster.AGENT_LOG).read_text()
    assert "NodeNotProgrammed" not in log
    assert runtime.check(wanted).is_good
    assert runtime.delete(wanted).is_good


def test_a_link_with_a_record_of_nobodys_is_named_and_one_that_was_renamed_is_none(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    assert runtime.add(wanted).is_good
    ip(node, "link", "add", "ghost0", "type", "veth", "peer", "name", "ghost1")
    alias = "weft:1 weft ghost eth0 0a0000000001 m46 10.244.0.99"
    ip(node, "link", "set", "ghost0", "alias", alias)
    os.kill(pid, signal.SIGSTOP)  # it has not heard of the other name when it is asked
    try:
        _rename(node, AttachmentKey(runtime.network, "c1", "eth0"))
        environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "COLUMNS": "300"}
        command = [sys.executable, "-m", "weft.main", "ipam", "check"]
        with _awake_later(pid):
            done = node.run(command, env=environment)
    finally:
        os.kill(pid, signal.SIGCONT)
    said = done.stdout.decode()
    assert done.returncode == 1
    assert "ip link delete ghost0" in said
    assert "vanished" not in said
    ip(node, "link", "delete", "ghost0")
    assert runtime.delete(wanted).is_good


def test_addresses_of_the_hosts_loopback_link_are_left_alone(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    link = AttachmentKey(runtime.network, "c1", "eth0").host_link
    assert runtime.add(wanted).is_good
    for address in ("192.0.2.5/32", "2001:db8::5/128"):
        ip(node, "address", "add", address, "dev", "lo")
    ip(node, "address", "add", "192.0.2.6/32", "dev", link)  # this one goes: they were heard of
    _wait(lambda: "192.0.2.6" not in ip(node, "address", "show", "dev", link), 10.0)
    found = ip(node, "-br", "address", "show", "dev", "lo").split()
    assert {"127.0.0.1/8", "::1/128", "192.0.2.5/32", "2001:db8::5/128"} <= set(found)
    assert runtime.delete(wanted).is_good


def test_a_foreign_link_with_the_name_of_one_that_went_is_not_taken_for_it(
    node: Node, bare_pod: Callable[[str], Path]
) -> None:
    pid = cluster.start_agent(node)
    bare_pod("p")
    runtime = cluster.runtime(node)
    wanted = Attachment(container="c1", netns="/run/netns/p")
    link = AttachmentKey(runtime.network, "c1", "eth0").host_link
    assert runtime.add(wanted).is_good
    os.kill(pid, signal.SIGKILL)
    ip(node, "link", "delete", link)
    ip(node, "link", "add", link, "type", "bridge")
    cluster.start_agent(node)
    assert "no attachment" in runtime.check(wanted).failure
    ip(node, "address", "add", "192.0.2.6/32", "dev", link)
    assert runtime.delete(wanted).is_good
    assert "192.0.2.6" in ip(node, "address", "show", "dev", link)
    ip(node, "link", "delete", link)
