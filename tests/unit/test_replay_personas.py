"""The data of replays, and what each runtime reads out of an answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from weft.lab.replay import forms, reading
from weft.lab.replay.forms import Asked
from weft.lab.replay.page import row
from weft.lab.replay.persona import Call
from weft.lab.replay.reading import READERS, Misread, Printed
from weft.lab.replay.table import PERSONAS

PAGE = Path(__file__).resolve().parents[2] / "docs/runtimes.md"


@pytest.mark.parametrize("name", PERSONAS)
def test_a_persona_is_whole(name: str) -> None:
    persona = PERSONAS[name]
    assert persona.sources
    assert all("/" in source.repository and source.what for source in persona.sources)
    assert len(persona.networks) == len(persona.ifnames)
    assert persona.reads in READERS
    assert 0 <= persona.placed < len(persona.bins)
    verbs = [step.verb for step in persona.steps if isinstance(step, Call)]
    assert "ADD" in verbs
    assert verbs.count("DEL") >= 2
    assert "weft" in Path(persona.conf_file).name


def test_no_two_personas_publish_the_same_port() -> None:
    used = [(port.host, port.protocol) for persona in PERSONAS.values() for port in persona.ports]
    assert len(used) == len(set(used))


RESULT = {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "wf0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [{"version": "4", "interface": 1, "address": "10.0.0.2/32"}],
}


def printed(version: str = "0.4.0", **keys: object) -> Printed:
    return Printed(
        stdout=json.dumps({**RESULT, "cniVersion": version, **keys}).encode(),
        version=version,
        ifname="eth0",
        seen=("10.0.0.2/32",),
    )


READ_RESULTS = ("libcni", "go_cni", "nomad", "garden", "first_of_each_family")


@pytest.mark.parametrize("reader", READ_RESULTS)
def test_what_a_runtime_reads(reader: str) -> None:
    assert READERS[reader](printed()) == ["10.0.0.2"]


@pytest.mark.parametrize("reader", READ_RESULTS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"ips": []},
        {"ips": [{"version": "4", "interface": 2, "address": "10.0.0.2/32"}]},
        {"ips": [{"version": "4", "interface": 1, "address": "10.0.0.2"}]},
        {"ips": [{"interface": 1, "address": "10.0.0.2/32"}]},
        {"code": 11, "msg": "later"},
        {"cniVersion": "1.0.0"},
    ],
)
def test_what_a_runtime_cannot_read(reader: str, wrong: dict[str, object]) -> None:
    shown = printed()
    body = {**json.loads(shown.stdout), **wrong}
    with pytest.raises(Misread):
        READERS[reader](msgspec.structs.replace(shown, stdout=json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        ("mesos", {"ips": [{"address": "10.0.0.2/32"}]}),
        ("mesos", {"ip4": {"ip": "10.0.0.2"}}),
        ("mesos", {"ip4": {"ip": "10.0.0.2/32", "routes": [{"gw": "10.0.0.1"}]}}),
        ("mesos", {"ip4": {"ip": "10.0.0.2/32"}, "dns": {"search": "x"}}),
        ("rkt", {"ip6": {"ip": "fd00::2/128"}}),
        ("rkt", {"ip4": {"ip": "10.0.0.2/32", "gateway": "x"}}),
        ("ecs_version", {"version": 1, "dirty": False, "gitShortHash": ""}),
        ("ecs_version", {"version": "1", "gitShortHash": ""}),
        ("ecs_capabilities", {"capabilities": "x"}),
        ("versions", {"supportedVersions": ["0.1.0"]}),
    ],
)
def test_what_no_runtime_of_that_kind_can_read(reader: str, body: dict[str, object]) -> None:
    with pytest.raises(Misread):
        READERS[reader](Printed(stdout=json.dumps(body).encode(), version="1.1.0"))


def test_output_where_there_is_to_be_none_is_a_misreading() -> None:
    with pytest.raises(Misread):
        reading.nothing(Printed(stdout=b"{}"))
    with pytest.raises(Misread):
        reading.nomad_version(Printed(stdout=b"CNI bridge plugin", stderr=b"version: one"))


def test_the_page_has_every_runtimes_line_and_no_other() -> None:
    listed = re.findall(r"^\| `[a-z0-9-]+` \|.*\|$", PAGE.read_text(), re.MULTILINE)
    assert listed == [row(persona) for persona in PERSONAS.values()]


@pytest.mark.parametrize("name", ["cloudfoundry", "mesos", "om3", "rkt"])
def test_the_pages_configurations_are_the_replayed_ones(name: str) -> None:
    conf, _ = forms.configured(PERSONAS[name], "weft")
    assert json.dumps(conf) in PAGE.read_text()


# -- standard input, byte by byte


def asked(verb: str, **more: object) -> Asked:
    made = {"network": "weft", "container": "c1", "ifname": "eth0", **more}
    return Asked(call=Call(verb=verb, says="-"), **made)  # type: ignore[arg-type]


def test_go_sorts_maps_and_keeps_structs_and_escapes() -> None:
    nomad = PERSONAS["nomad"]
    plugin = {"type": "weft", "capabilities": {"portMappings": True, "dns": False}, "b": "<&>"}
    previous = {"ips": [{"gateway": "g", "address": "a", "interface": 0}], "cniVersion": "1.1.0"}
    stdin = forms.libcni(nomad, plugin, asked("DEL", previous=previous)).decode()
    assert stdin == (
        '{"b":"\\u003c\\u0026\\u003e","capabilities":{"dns":false,"portMappings":true},'
        '"cniVersion":"1.1.0","name":"weft",'
        '"prevResult":{"cniVersion":"1.1.0","ips":[{"interface":0,"address":"a","gateway":"g"}]},'
        '"runtimeConfig":{"portMappings":['
        '{"HostPort":30851,"ContainerPort":80,"Protocol":"tcp","HostIP":"198.51.100.11"},'
        '{"HostPort":30851,"ContainerPort":80,"Protocol":"udp","HostIP":"198.51.100.11"}]},'
        '"type":"weft"}'
    )


def test_the_list_of_a_runtime_without_containers_is_null() -> None:
    call = Call(verb="GC", kept="nobody", says="-")
    without = msgspec.structs.replace(asked("GC"), call=call)
    stdin = forms.libcni(PERSONAS["crio"], {"type": "weft"}, without)
    assert json.loads(stdin)["cni.dev/valid-attachments"] is None
    assert json.loads(stdin)["cni.dev/attachments"] is None


def test_what_is_not_declared_is_not_passed_and_garden_passes_all() -> None:
    plugin = {"type": "weft"}
    assert b"runtimeConfig" not in forms.libcni(PERSONAS["k3s"], plugin, asked("ADD"))
    garden = PERSONAS["cloudfoundry"]
    given = json.loads(forms.libcni(garden, plugin, asked("ADD")))
    assert given["runtimeConfig"]["portMappings"] == [{"host_port": 30861, "container_port": 8080}]
    assert set(json.loads(forms.libcni(garden, plugin, asked("DEL")))) == {
        "cniVersion", "name", "type",
    }  # fmt: skip


def test_another_list_takes_the_place_of_wefts() -> None:
    other = {"cniVersion": "0.4.0", "plugins": [{"type": "bridge", "bridge": "x0"}, {"type": "p"}]}
    crio, mesos = PERSONAS["crio"], PERSONAS["mesos"]
    conf, _ = forms.configured(crio, "weft", other)
    assert [plugin["type"] for plugin in conf["plugins"]] == ["bridge", "p"]
    assert "cniVersions" not in conf
    assert forms.negotiated(crio, other) == "0.4.0"
    assert forms.asks(msgspec.structs.replace(crio, version="0.4.0"), "CHECK")
    assert not forms.asks(msgspec.structs.replace(crio, version="0.4.0"), "STATUS")
    conf, data = forms.configured(mesos, "weft", other)
    assert (conf["type"], conf["bridge"], conf["name"]) == ("bridge", "x0", "weft")
    assert json.loads(data) == conf


@pytest.mark.parametrize("name", PERSONAS)
def test_wefts_own_list_is_run_at_the_version_that_is_said(name: str) -> None:
    assert forms.negotiated(PERSONAS[name]) == PERSONAS[name].version
