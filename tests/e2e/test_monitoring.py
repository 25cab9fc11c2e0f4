"""Metrics and health of a real agent: whole, well-formed, and never in the agent's way."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from acceptance import Host, ask, watched
from weft.cli.machine import page
from weft.lab import entering
from weft.observe.catalogue import METRICS

ADDRESS = "127.0.0.1:9464"


def _page(host: Host, path: str) -> tuple[int, str]:
    with entering.network(host.node.network):
        return page(ADDRESS, path)


def test_every_metric_is_there_after_some_traffic_and_promtool_finds_no_fault(host: Host) -> None:
    host.add("pod")
    host.send(ask("ADD", "pod"))  # refused: it is attached
    assert _page(host, "/healthz") == (200, "ok")
    assert _page(host, "/readyz") == (200, "ready")
    status, text = _page(host, "/metrics")
    assert status == 200
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    names = {name for name, _ in found}
    # those with labels that only events make
    late = {"weft_repairs_total"}
    for metric in METRICS:
        name = metric.name + ("_count" if metric.kind == "histogram" else "")
        assert name in names or name in late, name
    failed = [key for key, value in found.items() if "scrape_failures" in key[0] and value]
    assert failed == []
    assert found["weft_attachments", (("state", "ready"),)] == 1
    assert found["weft_cni_requests_total", (("result", "interface-exists"), ("verb", "ADD"))] >= 1
    steps = [v for (n, _), v in found.items() if n == "weft_add_step_duration_seconds_count"]
    assert min(steps) >= 1, "every step of ADD is measured"
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text + "\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    host.drop("pod")


def test_a_taken_port_is_a_warning_and_no_failure(new_host: Callable[..., Host]) -> None:
    made = new_host()
    other = entering.socket_in(made.node.network, socket.AF_INET, socket.SOCK_STREAM)
    other.bind(("127.0.0.1", 9464))
    other.listen()
    with watched(made) as host:
        status = json.loads(host.weft("status", "-o", "json"))
        assert status["ready"]
        (warning,) = [w for w in status["warnings"] if w["reason"] == "metrics-not-listening"]
        assert ADDRESS in warning["message"]
    other.close()


def test_health_can_be_had_on_a_unix_socket_that_only_root_reaches(
    new_host: Callable[..., Host],
) -> None:
    made = new_host("metrics:\n  listen: unix:/run/weft/metrics.sock\n")
    with watched(made) as host:
        path = host.node.path("/run/weft/metrics.sock")
        assert path.stat().st_mode & 0o777 == 0o600
        assert page(f"unix:{path}", "/readyz") == (200, "ready")
        host.restart()  # a stale socket is in the way
        assert page(f"unix:{path}", "/readyz") == (200, "ready")
        figures = dict(line.split(" ") for line in page(f"unix:{path}", "/metrics")[1].splitlines()
                       if line.startswith("weft_start_"))  # fmt: skip
        # its three tables, which it adopted; nothing on a kernel that protects none
        assert float(figures["weft_start_row_changes"]) in (0, 3)
        assert float(figures["weft_start_rows"]) > 10
        assert 0 < float(figures["weft_start_duration_seconds"]) < 20
        told = json.loads(host.weft("status", "-o", "json"))["start"]
        assert told["standing"] == float(figures["weft_start_rows"])
