"""What docs/chains.md shows is what works: its configuration is run, and its refusals come true."""

from __future__ import annotations

import json
import re
from pathlib import Path

from test_host_ports import reach

from acceptance import Host
from chained import NODE4, Chain, Pod, good, ptp, ready, weft
from weft.lab.wiring import OUTSIDE_V4
from weft.model.reasons import REASONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "chains.md"


def test_the_configuration_of_the_page_attaches_a_container(host: Host) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    wanted = json.loads(shown)
    with ready(host):
        chain = Chain(host, *wanted["plugins"], name=wanted["name"])
        chain.runtime.plugins[0]["ipam"]["dataDir"] = "/run/chains/networks"
        pod = chain.add(
            "pod",
            portMappings=[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            bandwidth={"ingressRate": 10**8, "egressRate": 10**8},
        )
        pod.speaks()
        outside = host.wires.outside.network
        assert reach(outside, NODE4, 8080, pod.network, 80) == (OUTSIDE_V4, True)
        assert reach(pod.network, OUTSIDE_V4, 70, outside, 70).source == NODE4
        assert "weft+1 chained pod eth0" in host.shell(f"ip link show {pod.link}")
        assert f"group {0x77656661}" in host.shell(f"ip link show {pod.link}")
        good(pod.check())
        pod.drop()


def test_the_reason_that_the_page_names_can_be_explained() -> None:
    for reason in re.findall(r"weft explain ([a-z-]+)", PAGE.read_text()):
        assert reason in REASONS


def test_what_the_kernel_lacks_for_a_plugin_after_weft_is_that_plugins_to_say(
    host: Host,
) -> None:
    """vrf, where there is none: its error is not ours, and DEL takes everything back."""
    with ready(host):
        chain = Chain(host, weft(), {"type": "vrf", "vrfname": "blue"})
        outcome = chain.try_add("pod")
        if outcome.is_good:
            Pod(chain, "pod", outcome, {}).check()
        else:
            assert outcome.calls[-1].plugin == "vrf"
        good(chain.runtime.delete(chain.attachment("pod")))
        host.unmake(["pod"])


def test_a_plugin_that_makes_interfaces_finds_the_name_taken_after_weft(host: Host) -> None:
    with ready(host):
        chain = Chain(host, weft(), ptp())
        outcome = chain.try_add("pod")
        assert [call.status for call in outcome.calls] == [0, 1]
        assert "eth0" in outcome.failure
        chain.drop("pod")
