"""`./dev up`: install, start, attach, show. Safe to repeat, also after a run that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from weft.cni import install
from weft.lab import entering
from weft.lab.demo import containers, outside, places, probe, service
from weft.lab.demo.containers import Attached
from weft.lab.demo.outside import Outside
from weft.lab.demo.record import Record, give_back
from weft.model.errors import Conflict, NotFound
from weft.model.kernel_release import require_supported

NEXT = """
The network is running. To go on:

    weft status                    what this node holds
    weft get attachments           the containers attached to it
    weft ipam show                 addresses used, cooling and free
    ip netns exec weft-demo-a ip address
                                   a look from inside a container
    ./dev down                     give the machine back as it was
"""


def up() -> None:
    """The whole story, told on standard output."""
    require_supported(os.uname().release)
    record = Record()
    begin(record)
    say(f"agent: starting {'by systemd' if service.has_systemd() else f'(log {places.LOG})'}")
    service.start(record)
    world = outside.build(record)
    pods = [attach(record, name) for name in places.CONTAINERS]
    show(pods, world)
    sys.stdout.flush()
    print()
    subprocess.run([str(places.ON_PATH), "status"], check=True, timeout=30)
    print(NEXT, end="")


def begin(record: Record) -> None:
    """Install the files, or raise Conflict and leave no trace where weft is there already."""
    first = not record.path.exists()
    if first and places.SOCKET.exists():
        raise Conflict(
            f"an agent that `./dev up` did not start is using {places.SOCKET}; stop it first"
        )
    record.begin()
    try:
        install_files(record)
    except Conflict:
        if first:
            give_back(list(record.things()))
        raise


def install_files(record: Record) -> None:
    """Command, launcher and, last because runtimes act on it, the network list."""
    say(f"files: {places.ON_PATH}, launcher in {places.CNI_BIN}, {places.CONFLIST}")
    record.directory(places.ON_PATH.parent)
    record.file(places.ON_PATH, os.fsencode(places.PROGRAM), _link_program)
    if not install.LAUNCHER.exists():
        raise NotFound(f"{install.LAUNCHER} is missing: run `python3 native/compile.py`")
    launcher = install.LAUNCHER.read_bytes()
    record.directory(places.CNI_BIN)
    for directory in (places.CNI_BIN, places.CNI_BIN_DEBIAN):
        if directory.is_dir():
            place = partial(install.place_launcher, directory, places.PLUGIN)
            record.file(directory / places.PLUGIN, launcher, place)
    record.directory(places.CNI_CONF)
    text = install.DEFAULT_CONFLIST
    place = partial(install.write_conflist, places.CONFLIST, text, replace=True)
    record.file(places.CONFLIST, text, place)


def _link_program() -> None:
    if places.ON_PATH.is_symlink():
        places.ON_PATH.unlink()
    places.ON_PATH.symlink_to(places.PROGRAM)


def attach(record: Record, name: str) -> Attached:
    """A fresh attachment of a demo container; what an earlier run left is detached first."""
    path = places.NETNS / name
    record.namespace(path)
    containers.detach(containers.key_of(name), path)
    pod = containers.attach(name, path)
    say(f"attached: {name} {' '.join(pod.addresses)} in {pod.seconds * 1000:.1f} ms")
    return pod


def show(pods: list[Attached], world: Outside) -> None:
    """Each container reaches the other and the outside; raises NotReady where one does not."""
    first, second = pods
    for family in outside.families():
        here, there = first.address(family), second.address(family)
        if here is None or there is None:
            say(f"IPv{family}: the node gives no addresses of this family, `weft status` says why")
            continue
        for source, target, address in ((first, second, there), (second, first, here)):
            done = probe.tcp(source.netns, target.netns, address)
            if done.seen != source.address(family):
                raise Conflict(f"{target.name} saw {done.seen} instead of {source.name}'s address")
            print(f"    IPv{family}  {source.name} -> {target.name}  TCP {_ms(done)}")
        for pod in pods:
            _show_outside(pod, world, family)


def _show_outside(pod: Attached, world: Outside, family: int) -> None:
    if family == 6 and "::/0" not in pod.destinations:
        # The machine has no IPv6 way out, so its containers got none; show the path itself.
        entering.ip_batch(
            pod.netns, f"route replace {world.ranges[6]} via fe80::1 dev {containers.IFNAME}\n"
        )
    for name, exchange in (("TCP", probe.tcp), ("UDP", probe.udp)):
        done = exchange(pod.netns, world.namespace, world.address(family))
        if done.seen != world.node(family):
            raise Conflict(f"the outside saw {done.seen}, expected the node's {world.node(family)}")
        print(
            f"    IPv{family}  {pod.name} -> outside      {name} {_ms(done)}, "
            f"seen there as {done.seen} (this node)"
        )


def _ms(exchange: probe.Exchange) -> str:
    return f"{exchange.seconds * 1000:.1f} ms"


def say(text: str) -> None:
    """A line of progress."""
    print(f"==> {text}", flush=True)
