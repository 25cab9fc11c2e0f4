"""Plugins of others are run as libcni runs them, and never run us."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from weft.agent.parting import is_gone, is_off_record
from weft.agent.table import Attachments
from weft.engines import plugins
from weft.model.attachment import Attachment, AttachmentKey, Former, NamespaceId
from weft.model.errors import Conflict, PeerFault, Unsupported


def script(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_plugin_gets_its_variables_and_its_configuration(tmp_path: Path) -> None:
    path = script(tmp_path, "p", f"cat > {tmp_path}/stdin; env > {tmp_path}/env")
    plugins.call(path, {"CNI_COMMAND": "DEL"}, {"name": "n"}, patience=5)
    assert json.loads((tmp_path / "stdin").read_text()) == {"name": "n"}
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"CNI_COMMAND", "PATH"} <= names <= {"CNI_COMMAND", "PATH", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('echo \'{"code": 7, "msg": "no range", "details": "x"}\'; exit 1', "no range: x"),
        ("echo panic >&2; exit 2", "panic"),
        ("exit 3", "it said nothing"),
        ("echo '[1]'; exit 1", "[1]"),
    ],
)
def test_a_plugin_that_fails_is_told_with_its_words(tmp_path: Path, text: str, said: str) -> None:
    path = script(tmp_path, "p", f"cat > /dev/null; {text}")
    with pytest.raises(PeerFault) as caught:
        plugins.call(path, {}, {}, patience=5)
    assert said in caught.value.message


def test_a_plugin_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    path = script(tmp_path, "p", f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    with pytest.raises(PeerFault, match="did not end"):
        plugins.call(path, {}, {}, patience=0.3)
    assert time.monotonic() - began < 5
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{child}") and _state(child) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_plugin_whose_daemon_keeps_its_output_is_not_waited_for(tmp_path: Path) -> None:
    leave = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 20' &"
    for end in ("wait", "exit 0"):
        path = script(tmp_path, "p", f"{leave}\nuntil [ -s {tmp_path}/pid ]; do :; done; {end}")
        began = time.monotonic()
        try:
            with pytest.raises(PeerFault, match="did not end"):
                plugins.call(path, {}, {}, patience=0.3)
            assert time.monotonic() - began < 5
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            (tmp_path / "pid").unlink()


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_a_plugin_that_reads_nothing_is_no_failure(tmp_path: Path) -> None:
    path = script(tmp_path, "p", "exit 0")
    plugins.call(path, {}, {"x": "y" * 300_000}, patience=5)


@pytest.mark.parametrize("name", ["", ".", "..", "../sh", "/bin/sh", "a/b", "absent"])
def test_only_plain_names_are_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unsupported):
        plugins.find(name, ["/bin", str(tmp_path)])


def test_what_others_can_write_is_not_run(tmp_path: Path) -> None:
    script(tmp_path, "p", "true").chmod(0o777)
    with pytest.raises(Conflict):
        plugins.find("p", [str(tmp_path)])


def test_the_first_directory_that_has_it_counts_also_through_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    path = script(real, "p", "true")
    (tmp_path / "link").symlink_to(real)
    assert plugins.find("p", ["/nowhere", str(tmp_path / "link"), "/bin"]) == path


def imported(name: str, **more: object) -> Attachment:
    made: dict[str, object] = {"former": Former()} | more
    key = AttachmentKey("old", name, "eth0")
    fields = {"key": key, "host_link": ""} | made
    return Attachment(state="ready", mac=b"", mtu=0, addresses=(), **fields)  # type: ignore[arg-type]


def test_a_namespace_is_gone_with_its_path_or_where_another_has_it(tmp_path: Path) -> None:
    found = os.stat("/proc/self/ns/net")
    own = NamespaceId(dev=found.st_dev, ino=found.st_ino)
    other = NamespaceId(dev=found.st_dev, ino=1)
    assert is_gone(imported("a", sandbox=str(tmp_path / "none")))
    assert is_gone(imported("a", sandbox="/proc/self/ns/net", netns=other))
    assert not is_gone(imported("a", sandbox="/proc/self/ns/net", netns=own))
    left = tmp_path / "left"  # what a namespace was mounted on
    left.touch()
    assert is_gone(imported("a", sandbox=str(left)))
    assert not is_gone(imported("a"))  # nothing is known of it


def test_nobody_is_off_record_while_a_file_or_the_namespace_is_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    none = str(tmp_path / "none")
    assert not is_off_record(imported("a", sandbox=none, former=Former(cache=str(file))))
    assert not is_off_record(imported("a", former=Former(reservations=(none, str(file)))))
    assert not is_off_record(imported("a", sandbox="/proc/self/ns/net", former=Former(cache=none)))
    assert is_off_record(imported("a", sandbox=none, former=Former(cache=none)))
    assert is_off_record(imported("a", former=Former(reservations=(none,))))


def test_an_imported_attachment_is_found_under_any_network_and_its_link_is_not_ours() -> None:
    table = Attachments()
    table.put(imported("c1", host_link="veth1"))
    nameless = AttachmentKey("old", "c2", "")
    table.put(imported("c2", key=nameless))
    assert [a.key.container for a in table.imported_as(AttachmentKey("weft", "c1", "eth0"))] == [
        "c1"
    ]
    assert table.imported_as(AttachmentKey("weft", "c1", "eth1")) == []
    assert [a.key for a in table.imported_as(AttachmentKey("weft", "c2", "eth3"))] == [nameless]
    assert table.of_link("veth1") is None
    for each in table.imported():
        table.drop(each.key)
    assert len(table) == 0 and table.imported() == []
