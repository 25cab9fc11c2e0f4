"""The table of codes in docs/reference/cni.md: each line is tried, and says what happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weft.model.errors import Invalid
from weft.model.reasons import REASONS
from weft.wire.cni import parse_request

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cni.md"
ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}
HEAD = {"cniVersion": "1.1.0", "name": "net", "type": "weft"}
MADE = {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}]}


def env(**variables: str) -> tuple[dict[str, str], bytes]:
    return {**ENV, **variables}, json.dumps(HEAD).encode()


def conf(command: str = "ADD", **keys: Any) -> tuple[dict[str, str], bytes]:
    return {**ENV, "CNI_COMMAND": command}, json.dumps({**HEAD, **keys}).encode()


# for each line of the table, in its order: situations that it is about
LINES: list[list[tuple[dict[str, str], bytes]]] = [
    [env(CNI_CONTAINERID=""), env(CNI_COMMAND="")],
    [env(CNI_COMMAND="UPDATE")],
    [env(CNI_CONTAINERID="-x"), env(CNI_CONTAINERID="-x", CNI_COMMAND="DEL")],
    [env(CNI_CONTAINERID="x" * 164)],
    [env(CNI_IFNAME="lo"), env(CNI_IFNAME="a/b", CNI_COMMAND="DEL")],
    [env(CNI_NETNS="x")],
    [env(CNI_ARGS="IP=10.0.0.1;"), env(CNI_ARGS="=1")],
    [env(CNI_ARGS="A=1")],
    [env(CNI_ARGS="IP=x")],
    [(ENV, b" " * (2**20 + 1))],
    [(ENV, b""), (ENV, b"{"), (ENV, b'{"mtu":NaN}'), (ENV, b"[" * 65)],
    [conf(mtu="x"), conf(prevResult=7)],
    [conf(cniVersion="x"), conf("GC", cniVersion="x")],
    [conf(cniVersion="1.2.0"), conf("GC", cniVersion="1.2.0")],
    [conf("CHECK", cniVersion="0.3.1", prevResult={})],
    [conf(name=""), conf("DEL", name=None)],
    [conf(name="a/b"), conf("GC", name="a/b")],
    [conf(ipam={"type": "dhcp"}), conf("CHECK", ipam={"type": "dhcp"}, prevResult={})],
    [conf(mtu=1400, prevResult=MADE), conf(mode="bridge", prevResult=MADE)],
    [conf(mode="x"), conf(mode="bridge", bridge="a b"), conf(mode="bridge", bridge="wf0")],
    [conf(mode="bridge", vlan=7), conf(mode="bridge", isGateway=False)],
    [conf(type="a/b"), conf(mtu=1), conf(pools=[])],
    [conf(runtimeConfig={"ips": ["10.0.0.1", "x"]})],
    [conf(labels={"-": ""}), conf(args={"cni": {"labels": [{"key": "a", "value": "-"}]}})],
    [conf("CHECK")],
    [conf(prevResult={"ips": [{"address": "x"}]}), conf(prevResult={"ips": [{}] * 1025})],
    [conf(prevResult={"ips": [{"address": "10.0.0.1/8", "interface": 0}]})],
    [conf(prevResult={"cniVersion": "1.2.0"})],
    [conf("GC")],
]


def table() -> list[tuple[str, int, str]]:
    section = PAGE.read_text().split("## Which situation gives which code")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [(about, int(code), message) for about, code, message in rows[1:]]


def test_every_line_of_the_table_is_tried() -> None:
    assert len(table()) == len(LINES)


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_line_of_the_table_says_what_happens(number: int) -> None:
    about, code, message = table()[number]
    for variables, stdin in LINES[number]:
        with pytest.raises(Invalid) as caught:
            parse_request(variables, stdin)
        reason = REASONS[caught.value.reason]
        assert (reason.cni, reason.early) == (code, True), about
        if message.startswith("`"):
            stem = message.strip("`").replace("A,B] missing", "").removesuffix("X")
            assert caught.value.message.startswith(stem), about
        else:  # the key, or the place of the wish
            assert caught.value.message.startswith(caught.value.field), about
            assert caught.value.field, about


@pytest.mark.parametrize("version", ["x", "1.2.0", "9.9.9"])
def test_del_is_understood_whatever_version_it_speaks(version: str) -> None:
    request = parse_request(*conf("DEL", cniVersion=version))
    assert request.command == "DEL"
    assert request.key.container == ENV["CNI_CONTAINERID"]
