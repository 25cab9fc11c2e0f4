"""T09: the machine reboots: everything on /run and every namespace is gone, the disk is kept."""

from __future__ import annotations

import uuid

import pytest

from acceptance import SLACK, Host, ask, problems

READY = 3.0  # seconds from the agent's start to the first ADD's answer


def _reboot(host: Host, names: list[str]) -> None:
    """What a boot leaves: no namespace, no link, no rule, nothing on /run, another boot-id."""
    host.end()
    host.unmake(names)
    host.shell("for l in $(ip -o link | grep -o 'wf[a-z2-7]*'); do ip link del $l || true; done")
    host.shell("nft flush ruleset; rm -rf /run/weft; mkdir -m 700 /run/weft")
    host.shell(f"echo {uuid.uuid4()} >/run/weft/boot-id")


@pytest.mark.matrix(id="T09", full=50, reduced=2)
def test_a_reboot_leaks_no_address_and_the_first_add_comes_soon(host: Host, count: int) -> None:
    names = [f"pod-{n}" for n in range(100 if count >= 50 else 20)]
    queue = host.node.path("/run/weft/queue").exists()
    seconds = []
    for turn in range(count):
        host.make(names)
        assert not problems(host.storm([ask("ADD", name) for name in names]))
        _reboot(host, names)
        took = host.start()
        host.make(["first"])
        said = host.send(ask("ADD", "first"))
        assert said.status == 0, said.stdout
        seconds.append(took + said.seconds)
        print(f"boot {turn}: first ADD after {seconds[-1]:.2f} s")
        assert seconds[-1] <= READY * SLACK
        assert host.used() == 2, f"turn {turn}: addresses of the last boot are still held"
        host.drop("first")
    print(f"first ADD: median {sorted(seconds)[count // 2]:.2f} s, worst {max(seconds):.2f} s")
    host.shell("rm -f /run/weft/boot-id" + ("; mkdir -p -m 700 /run/weft/queue" if queue else ""))
