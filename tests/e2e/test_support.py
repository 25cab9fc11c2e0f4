"""`weft support`: everything is in the archive but secrets, with an agent and without."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from acceptance import Host, ask, pool, watched
from journals import journal
from weft.cli.client import Client
from weft.cli.support import parts
from weft.cli.support.redaction import Redactor
from weft.lab import calls, cluster, nodes
from weft.lab.nodes import CLEAN_PATH
from weft.model.errors import WeftError

NUMBER = iter(range(10_000))
ARCHIVE = "/run/support.tar.gz"
CONFIG = "/etc/weft/other.yaml"


def canary() -> str:
    """A secret that stands nowhere else."""
    return f"CanaryQ7x{next(NUMBER):04d}Zr5Vb"


def _plant(host: Host) -> list[str]:
    """Secrets in every place where people put one; what they are."""
    made = [canary() for _ in range(50)]
    left = iter(made)
    other = {
        "cniVersion": "1.0.0",
        "name": "other",
        "plugins": [
            {"type": "bridge", "ipam": {"type": "x", "token": next(left)}, "password": next(left)},
            {"type": "vpn", "privateKey": next(left), "peers": [{"psk": next(left)}]},
            {"type": "y", "env": {"AWS_SECRET": next(left)}, "url": f"http://u:{next(left)}@h/"},
            {"type": "z", next(left): 1, "list": [next(left), [next(left)]], "name": next(left)},
            {"type": "k", "kubernetes": {"kubeconfig": next(left)}, "capabilities": {"a": True}},
            {"type": "p", "ca": f"-----BEGIN KEY-----\n{next(left)}\n-----END KEY-----"},
        ],
    }
    host.node.path("/etc/cni/net.d/20-other.conflist").write_text(json.dumps(other))
    extended = pool("noted", "10.203.0.0/24", reservations={"10.203.0.9": next(left)})
    extended["metadata"] |= {
        "labels": {"team": next(left)},
        "annotations": {"example.com/token": next(left), "note": f"password={next(left)}"},
    }
    host.apply(extended)
    host.weft("label", "pod", "shown", f"secret={next(left)}", f"plain={next(left)}")
    host.make(["shown"])
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;TOKEN={next(left)}"
    annotations = {"io.kubernetes.cri.pod-annotations": {"vault": next(left)}}
    said = host.send(
        ask(
            "ADD",
            "shown",
            cni_args=f"{args};WEFT_LABELS=key:{next(left)}",
            labels={"app": next(left)},
            runtimeConfig=annotations,
            ipam={"type": "weft", "token": next(left)},
            args={"cni": {"labels": [{"key": "a", "value": next(left)}]}},
            extra={"password": next(left)},
        )
    )
    assert said.status == 0, said
    refused = (
        {"cni_args": f"TOKEN={next(left)}=x"},
        {"cni_args": next(left)},
        {"labels": {"a": f"{next(left)} not valid"}},
        {"ipam": {"type": next(left)}},
        {"args": {"cni": {"ips": [next(left)]}}},
        {"cni_args": f"K8S_POD_NAME=/{next(left)}"},
        {"runtimeConfig": {"mac": next(left)}},
    )
    for how in refused:
        assert host.send(ask("ADD", "refused", pod="shown", **how)).status == 1
    with host.node.path(cluster.AGENT_LOG).open("a") as log:
        stamp = "2026-01-01T00:00:00.000Z warning"
        log.write(f"{next(left)}\n{stamp} told token={next(left)}\n")
        log.write(f"{stamp} see https://me:{next(left)}@host/ Authorization: Bearer {next(left)}\n")
        log.write(f"{stamp} got\n-----BEGIN KEY-----\n{next(left)}\n-----END KEY-----\n")
        for secret in left:
            log.write(f"{stamp} api_key: {secret} and more\n")
    return made


def _content(host: Host) -> dict[str, str]:
    with tarfile.open(host.node.path(ARCHIVE)) as archive:
        found = {entry.name.removeprefix("weft-support/"): entry for entry in archive.getmembers()}
        assert all(entry.mode == 0o600 for entry in found.values())
        read: dict[str, str] = {}
        for name, entry in found.items():
            file = archive.extractfile(entry)
            assert file is not None
            read[name] = file.read().decode()
    assert host.node.path(ARCHIVE).stat().st_mode & 0o777 == 0o600
    host.node.path(ARCHIVE).unlink()
    return read


def _collected(host: Host) -> dict[str, str]:
    said = host.weft("support", "--output", ARCHIVE, "--log", str(cluster.AGENT_LOG))
    assert ARCHIVE in said and "status.json" in said
    return _content(host)


def test_an_archive_holds_what_is_needed_and_no_secret(new_host: Callable[..., Host]) -> None:
    made = new_host()
    made.node.path(CONFIG).write_text("log:\n  level: debug\n")
    made.command = [*made.command, "--config", CONFIG]
    made.environment = {"DATABASE_PASSWORD": canary(), "PATH": CLEAN_PATH}
    with watched(made) as host:
        planted = [*_plant(host), made.environment["DATABASE_PASSWORD"]]
        begun = host.log()[: host.log().index("2026-01-01T00:00:00.000Z")].rpartition("\n")[0]
        before = {secret for secret in planted if secret in begun.rpartition("\n")[0]}
        assert before == set(), "the agent wrote a secret to its log"
        found = _collected(host)
        shown = {
            secret: name for name, text in found.items() for secret in planted if secret in text
        }
        assert shown == {}
        data: dict[str, Any] = {n: json.loads(t) for n, t in found.items() if n.endswith(".json")}
        assert data["status.json"]["ready"] is True
        assert data["attachments.json"]["items"][0]["spec"]["container"] == "shown"
        assert data["journal.json"]["attachment"] and data["store.json"]["entries"]
        assert data["configurations.json"]["20-other.conflist"]["plugins"][0]["type"] == "bridge"
        assert any(link["ifname"].startswith("wf") for link in data["links.json"])
        assert data["settings.json"]["file"] == CONFIG
        assert data["settings.json"]["log"]["level"] == "debug"
        assert "Started" in found["agent.log"] and "weft_" in found["metrics.txt"]
        assert not data["summary.json"]["missing"], data["summary.json"]["missing"]
        host.drop("shown")
        host.weft("delete", "pod", "shown")
        host.weft("delete", "ippool", "noted")
        host.node.path("/etc/cni/net.d/20-other.conflist").unlink()

        host.end(signal.SIGTERM)
        alone = _collected_without_agent(host)
        host.start()
    missing = json.loads(alone["summary.json"])["missing"]
    assert "no agent answers" in missing["status.json"]
    assert {"store.json", "rules.json", "links.json", "agent.log", "doctor.json"} <= alone.keys()
    assert json.loads(alone["settings.json"])["file"] == CONFIG


def _collected_without_agent(host: Host) -> dict[str, str]:
    logged = ("--log", str(cluster.AGENT_LOG))
    said = host.weft("support", "--output", ARCHIVE, *logged, "--config", CONFIG)
    assert "without status.json" in said
    return _content(host)


def _log(where: str) -> str:
    scene = parts.Scene(cast(Client, None), Redactor(b""), Path(where) if where else None)
    return parts.log(scene)


def test_log_is_taken_from_the_journal_and_from_a_directory_of_one() -> None:
    ours = "2026-01-01T00:00:00.000Z info Started token=abcdefgh"
    node = nodes.start(f"support-journal-{os.getpid()}")
    try:
        with journal(node) as write:
            write("other.service", "2026-01-01T00:00:00.000Z info another unit\n")
            write("weft.service", f"{ours}\nnot the agent's\n")
            assert node.run(["journalctl", "--sync"]).returncode == 0
            found = calls.call(node, _log, "")
        assert ours.partition(" token")[0] in found and "abcdefgh" not in found
        assert "another unit" not in found and "(1 lines that are not the agent's" in found
        # the journal of a machine that does not run, as of a disk that was taken out
        assert node.run(["mv", "/run/log/journal", "/run/elsewhere"]).returncode == 0
        assert calls.call(node, _log, "/run/elsewhere") == found
        with pytest.raises(WeftError, match="neither is there a log file"):
            calls.call(node, _log, "")
    finally:
        nodes.stop(node)


@pytest.mark.parametrize(
    "text",
    [
        "token=abcdefgh",
        "postgres://me:hunter2hunter2@host/base",
        "Authorization: Basic aHVudGVyMjpodW50ZXIy",
        'password: "two words"',
        "wg: yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
    ],
)
def test_a_text_that_looks_like_a_secret_is_hidden(text: str) -> None:
    shown = Redactor(b"salt").text(f"before {text} after")
    for part in ("abcdefgh", "hunter2", "aHVudGVy", "two words", "yAnz5TF"):
        assert part not in shown
    assert shown.startswith("before") and shown.endswith("after")


def test_equal_values_have_equal_tokens_within_one_archive_only() -> None:
    one, other = Redactor(b"one"), Redactor(b"other")
    assert one.token("value") == one.token("value") != one.token("eulav")
    assert one.token("value") != other.token("value")
