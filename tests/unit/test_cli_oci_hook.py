"""`weft oci-hook`: what it prints, and what it makes of a bundle's file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_run import run

from weft.cni import install, oci

HOOK = {"path": "/opt/weft", "args": ["weft", "oci-hook", "--network", "weft"]}
OTHER = {"path": "/bin/true", "args": ["true", "oci-hook-2"]}


@pytest.fixture(autouse=True)
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that `weft install` placed."""
    place = tmp_path / "bin" / "weft"
    place.parent.mkdir()
    place.write_bytes(install.MARK)
    monkeypatch.setattr(install, "DIRECTORIES", (str(tmp_path / "none"), str(place.parent)))
    return str(place)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    place = tmp_path / "config.json"
    place.write_text(json.dumps({"ociVersion": "1.0.2", "annotations": {"a": "é"}}))
    place.chmod(0o640)
    return place


def hooks(bundle: Path) -> Any:
    return json.loads(bundle.read_text())["hooks"]


def test_prints_one_hook_for_both_stages(launcher: str) -> None:
    ran = run("oci-hook", "config")
    entry = {**HOOK, "path": launcher}
    assert json.loads(ran.out) == {"hooks": {"createRuntime": [entry], "poststop": [entry]}}


def test_names_the_network_beside_its_file(tmp_path: Path) -> None:
    conf = tmp_path / "blue.conflist"
    conf.write_text("{}")
    words = ("--network", "blue", "--conf", str(conf), "--ifname", "net1")
    args = json.loads(run("oci-hook", "config", *words).out)["hooks"]["poststop"][0]["args"]
    assert args == ["weft", "oci-hook", *words]


def test_file_of_hooks_d_matches_the_annotation_and_nothing_else(launcher: str) -> None:
    made = json.loads(run("oci-hook", "hooks-d", "--network", "a.b").out)
    assert (made["version"], made["hook"]["path"]) == ("1.0.0", launcher)
    assert made["stages"] == ["createRuntime", "poststop"]
    ((name, value),) = made["when"]["annotations"].items()
    assert re.search(name, "weft.dev/network") and re.search(value, "a.b")
    assert not re.search(name, "weftxdev/network") and not re.search(value, "a.b.c")
    assert not re.search(value, "aXb")


def test_hooks_are_written_into_a_bundle_once(bundle: Path, launcher: str) -> None:
    assert "has the hooks now" in run("oci-hook", "config", str(bundle)).out
    first = bundle.read_text()
    assert "has had the hooks already" in run("oci-hook", "config", str(bundle)).out
    assert bundle.read_text() == first
    assert hooks(bundle)["createRuntime"] == [{**HOOK, "path": launcher}]
    found = json.loads(first)
    assert (found["ociVersion"], found["annotations"]) == ("1.0.2", {"a": "é"})
    assert bundle.stat().st_mode & 0o777 == 0o640


def test_hooks_of_others_stay_and_ours_for_the_interface_is_replaced(bundle: Path) -> None:
    old = {"path": "/old/weft", "args": ["weft", "oci-hook"]}
    second = {"path": "/old/weft", "args": ["weft", "oci-hook", "--ifname", "eth1"]}
    config = json.loads(bundle.read_text())
    config["hooks"] = {"createRuntime": [OTHER, old, second, OTHER], "poststart": [OTHER]}
    bundle.write_text(json.dumps(config))
    assert run("oci-hook", "config", str(bundle)).status == 0
    standing = hooks(bundle)
    assert [each["path"] for each in standing["createRuntime"]][::3] == ["/bin/true"] * 2
    assert standing["createRuntime"][2] == second
    assert standing["createRuntime"][1]["path"] != "/old/weft"
    assert standing["poststart"] == [OTHER] and len(standing["poststop"]) == 1


def test_other_forms_of_what_may_stand_are_understood(bundle: Path, launcher: str) -> None:
    """An interface after an equals sign, the stage's older name, and Go's word for nothing."""
    second = {"path": launcher, "args": ["weft", "oci-hook", "--ifname=eth1"]}
    bundle.write_text(json.dumps({"ociVersion": "1", "hooks": {"createRuntime": [second]}}))
    assert run("oci-hook", "config", str(bundle)).status == 0
    assert [second, {**HOOK, "path": launcher}] == hooks(bundle)["createRuntime"]
    old = {"path": launcher, "args": ["weft", "oci-hook", "--network", "old"]}
    bundle.write_text(json.dumps({"ociVersion": "1", "hooks": {"prestart": [old, second]}}))
    assert run("oci-hook", "config", str(bundle)).status == 0
    assert hooks(bundle)["prestart"] == [{**HOOK, "path": launcher}, second]
    assert "createRuntime" not in hooks(bundle) and len(hooks(bundle)["poststop"]) == 1
    bundle.write_text('{"ociVersion":"1","hooks":null}')
    assert run("oci-hook", "config", str(bundle)).status == 0
    assert set(hooks(bundle)) == {"createRuntime", "poststop"}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "{}", "[" * 100_000, "\xff"),
        '{"ociVersion":"1","hooks":[]}',
        '{"ociVersion":"1","hostname":"\\ud800"}',
        '{"ociVersion":"1","hooks":{"prestart":{}}}',
        '{"ociVersion":"1","hooks":{"poststop":{}}}',
    ],
)
def test_what_is_no_bundles_file_is_refused_and_stays(bundle: Path, text: str) -> None:
    bundle.write_text(text, encoding="latin-1")
    ran = run("oci-hook", "config", str(bundle))
    assert ran.status == 1 and str(bundle) in ran.err and "Traceback" not in ran.err
    assert bundle.read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--network", "../x"), "--network"),
        (("--ifname", "x" * 16), "--ifname"),
        (("--ifname", ""), "--ifname"),
        (("--conf", "relative"), "--conf: relative is no absolute path"),
        (("--conf", "/no/such"), "--conf: there is no file /no/such"),
        (("--launcher", "/no/such"), "--launcher: there is no file /no/such"),
    ],
)
def test_options_that_no_hook_could_have_are_refused(words: tuple[str, ...], said: str) -> None:
    for command in ("config", "hooks-d"):
        ran = run("oci-hook", command, *words)
        assert ran.status in (1, 2) and said in ran.err and ran.out == ""


def test_without_a_launcher_it_says_what_to_run(launcher: str) -> None:
    Path(launcher).unlink()
    ran = run("oci-hook", "config")
    assert ran.status == 1 and "run `weft install`" in ran.err


def test_the_patterns_of_hooks_d_are_exact_for_every_name_that_cni_takes() -> None:
    for name in ("weft", "a.b", "a-b", "a_b", "A1"):
        pattern = oci.Hook(launcher="/x", network=name).of_directory()["when"]["annotations"]
        assert all(re.search(value, name) for value in pattern.values())
