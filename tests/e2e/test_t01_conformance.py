"""T01: every verb and every error at every version of the specification.

A script apart from the conformance kit, written against `docs/reference/cni.md`: about fifty
calls a version, each with the code that the page promises.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from acceptance import Answer, Ask, Host, ask, host_link, keep, pod_mac, problems

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
HOST_MAC = "0a:77:65:66:74:00"
POD = "scripted"


def _since(version: str | None, first: str) -> bool:
    return _order(version or "0.1.0") >= _order(first)


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _without(request: Ask, *names: str) -> Ask:
    env = {name: value for name, value in request.env.items() if name not in names}
    return msgspec.structs.replace(request, env=env)


def _with(request: Ask, **env: str) -> Ask:
    return msgspec.structs.replace(request, env={**request.env, **env})


def _raw(request: Ask, stdin: bytes) -> Ask:
    return msgspec.structs.replace(request, stdin=stdin)


def _refused(version: str | None) -> list[tuple[int, Ask]]:
    """Requests that are wrong in one place, with the code of the table."""
    add = ask("ADD", POD, version=version)
    rows: list[tuple[int, Ask]] = [
        (4, _without(add, name)) for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
    ]
    rows.append((4, _without(add, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")))
    rows += [(4, _with(add, CNI_COMMAND=word)) for word in ("add", "REMOVE", "ADD ")]
    rows += [(4, _with(add, CNI_CONTAINERID=bad)) for bad in ("a b", "../x", "-rf", "a" * 300)]
    rows += [
        (4, _with(add, CNI_IFNAME=bad)) for bad in ("lo", "..", "a/b", "a:b", "sixteen-octets-x")
    ]
    rows += [(4, _with(add, CNI_NETNS="run/netns/x"))]
    rows += [(8, _with(add, CNI_NETNS=bad)) for bad in ("/run/netns/none", "/etc/hostname", "/run")]
    rows += [(8, _with(add, CNI_NETNS="/proc/self/ns/net"))]
    rows += [
        (4, _with(add, CNI_ARGS=bad))
        for bad in ("word", ";;=", "STRANGE=1", "IP=300.1.1.1", "MAC=ff:ff:ff:ff:ff:ff")
    ]
    rows += [(6, _raw(add, bad)) for bad in (b"", b"{", b"[]", b'{"name": NaN}', b"\xff\xfe{}")]
    rows += [(6, ask("ADD", POD, version="one")), (1, ask("ADD", POD, version="2.0.0"))]
    keys: list[tuple[int, dict[str, Any]]] = [
        (7, {"network": ""}),
        (7, {"network": "a b"}),
        (6, {"network": 7}),
        (2, {"ipam": {"type": "host-local"}}),
        (6, {"ipam": [1]}),
        (7, {"mtu": -1}),
        (6, {"mtu": "large"}),
        (7, {"pools": []}),
        (7, {"runtimeConfig": {"ips": ["127.0.0.1"]}}),
        (7, {"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}),
        (1, {"prevResult": {"cniVersion": "9.9.9"}}),
    ]
    rows += [(code, ask("ADD", POD, version=version, **bad)) for code, bad in keys]
    check = 7 if _since(version, "0.4.0") else 1
    rows += [(check, ask("CHECK", POD, version=version))]
    status, collect = (None, 7) if _since(version, "1.1.0") else (1, 1)
    rows += [(collect, ask("GC", version=version))]
    if status is not None:
        rows += [(status, ask("STATUS", version=version))]
        rows += [(1, ask("GC", version=version, **{"cni.dev/valid-attachments": []}))]
    return rows


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _speakable(request: Ask) -> tuple[str, ...]:
    """The versions an error may be told in: the caller's, or the newest where it cannot be read.

    A caller that says nothing means 0.1.0; whoever refuses it early may not know that yet. The
    shape of an error is the same in all.
    """
    try:
        said = json.loads(request.stdin, parse_constant=_no_json)
    except ValueError:
        return (VERSIONS[-1],)
    if not isinstance(said, dict):
        return (VERSIONS[-1],)
    return (said["cniVersion"],) if "cniVersion" in said else (VERSIONS[0], VERSIONS[-1])


@pytest.mark.matrix(id="T01", full=400, reduced=400)
def test_every_verb_and_error_at_every_version(host: Host, count: int) -> None:
    host.make([POD])
    calls = 0
    for version in (*VERSIONS, None):
        rows = _refused(version)
        answers = host.storm([request for _, request in rows], workers=1)
        for (code, request), said in zip(rows, answers, strict=True):
            assert not problems([said], status=1, code=code), (version, request)
            speaks = (said.json or {})["cniVersion"]
            assert speaks in _speakable(request), (version, request, said.stdout)
        assert host.pod_links == set()
        calls += len(rows) + _lifecycle(host, version)
    assert calls >= count
    host.unmake([POD])


def _lifecycle(host: Host, version: str | None) -> int:
    """The verbs as they are meant, and the result in its version's shape; how many calls."""
    script = [
        (0, ask("VERSION", version=version)),
        (0, ask("DEL", POD, version=version)),
        (0, ask("ADD", POD, version=version)),
        (7, ask("ADD", POD, version=version)),
    ]
    versions, _, added, again = answers = host.storm([r for _, r in script], workers=1)
    assert (versions.json or {})["supportedVersions"] == list(VERSIONS)
    for (code, request), said in zip(script, answers, strict=True):
        assert not problems([said], status=int(bool(code)), code=code or None), (version, request)
    _shape(added, version or "0.1.0")
    assert (again.json or {})["cniVersion"] == (version or "0.1.0")
    assert host.pod_links == {host_link(POD)}

    late: list[tuple[int, Ask]] = []
    if _since(version, "0.4.0"):
        late.append((0, ask("CHECK", POD, version=version, prevResult=added.json)))
    if _since(version, "1.1.0"):
        valid = {"cni.dev/valid-attachments": keep((POD, "eth0"))}
        late += [(0, ask("STATUS", version=version)), (0, ask("GC", version=version, **valid))]
        late += [(0, ask("CHECK", POD, version=version, prevResult=added.json))]
    previous = added.json if _since(version, "0.4.0") else None
    extra = {"prevResult": previous} if previous else {}
    late += [(0, ask("DEL", POD, version=version, **extra))] * 2
    for (_, request), said in zip(late, host.storm([r for _, r in late], workers=1), strict=True):
        assert (said.status, said.stdout) == (0, b""), (version, request, said.stdout)
    assert host.pod_links == set()
    return len(script) + len(late)


def _shape(said: Answer, version: str) -> None:
    body = said.json or {}
    assert body["cniVersion"] == version
    if not _since(version, "0.3.0"):
        assert body.keys() == {"cniVersion", "ip4", "ip6", "dns"}
        for family in ("ip4", "ip6"):
            assert body[family].keys() == {"ip", "gateway", "routes"}
            assert body[family]["ip"].endswith("/32" if family == "ip4" else "/128")
        return
    plain = {"cniVersion", "interfaces", "ips", "routes"}
    assert body.keys() == (plain if _since(version, "1.0.0") else plain | {"dns"})
    newest = {"mtu"} if _since(version, "1.1.0") else set()
    node, pod = body["interfaces"]
    assert node.keys() == {"name", "mac"} | newest
    assert pod.keys() == {"name", "mac", "sandbox"} | newest
    assert (node["name"], node["mac"]) == (host_link(POD), HOST_MAC)
    assert (pod["name"], pod["mac"]) == ("eth0", pod_mac(POD))
    assert pod["sandbox"] == f"/run/netns/{POD}"
    four, six = body["ips"]
    assert four["address"].endswith("/32")
    assert six["address"].endswith("/128")
    assert (four["gateway"], six["gateway"]) == ("169.254.1.1", "fe80::1")
    for ip in (four, six):
        assert ip["interface"] == 1
        assert ("version" in ip) == (not _since(version, "1.0.0"))
    assert body["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
        {"dst": "::/0", "gw": "fe80::1"},
    ]
