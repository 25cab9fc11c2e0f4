"""Reading the queue of DELs: oldest first, garbage set aside, nothing read through links."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from weft.cni.queue import drop, queued_path, read_queue
from weft.model.attachment import AttachmentKey
from weft.model.errors import Conflict
from weft.wire.local import FLAG_QUEUED, MAX_REQUEST, CniRequest, encode_cni_request

GARBAGE = {
    "empty": b"",
    "text": b"hello",
    "torn": encode_cni_request(CniRequest(program="weft", environment=(), stdin=b"{}"))[:-9],
    "two frames": encode_cni_request(CniRequest(program="weft", environment=(), stdin=b"{}")) * 2,
    "an answer": b"WFT1\x01\0\x02\0\x05\0\0\0" + b"\0" * 5,
    "too large": b"WFT1" + b"\0" * (MAX_REQUEST + 100),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    path.mkdir(mode=0o700)
    return path


def delete(container: str, started_ns: int = 1) -> CniRequest:
    environment = (("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", container))
    return CniRequest(
        program="weft",
        environment=environment,
        stdin=b'{"name":"weft"}',
        flags=FLAG_QUEUED,
        started_ns=started_ns,
    )


def put(directory: Path, container: str, started_ns: int = 1) -> Path:
    path = queued_path(directory, AttachmentKey("weft", container, "eth0"))
    path.write_bytes(encode_cni_request(delete(container, started_ns)))
    return path


def test_an_absent_directory_is_an_empty_queue(tmp_path: Path) -> None:
    assert read_queue(tmp_path / "queue") == []


def test_waiting_deletes_come_oldest_first_until_dropped(directory: Path) -> None:
    paths = [put(directory, f"c{number}", started_ns=100 - number) for number in range(5)]
    waiting = read_queue(directory)
    assert [one.path for one in waiting] == paths[::-1]
    assert waiting[0].request == delete("c4", 96)
    drop(paths[0])
    drop(paths[0])
    assert len(read_queue(directory)) == 4


@pytest.mark.parametrize("name", list(GARBAGE))
def test_garbage_is_set_aside_and_the_rest_read(directory: Path, name: str) -> None:
    path = put(directory, "c1")
    bad = directory / "bad.req"
    bad.write_bytes(GARBAGE[name])
    assert [one.path for one in read_queue(directory)] == [path]
    assert sorted(one.name for one in directory.iterdir()) == sorted([path.name, "bad.req.bad"])
    assert len(read_queue(directory)) == 1


def test_links_pipes_and_directories_are_never_read(directory: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(encode_cni_request(delete("x")))
    (directory / "a.req").symlink_to(outside)
    os.link(outside, directory / "b.req")
    os.mkfifo(directory / "c.req")
    (directory / "d.req").mkdir()
    assert read_queue(directory) == []
    assert outside.read_bytes() == encode_cni_request(delete("x"))
    assert {one.name for one in directory.iterdir()} == {f"{name}.req.bad" for name in "abcd"}


def test_unfinished_files_stay_while_their_writer_may_live(directory: Path) -> None:
    (directory / "left.2.tmp").touch()
    with (directory / "new.1.tmp").open("wb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert read_queue(directory) == []
        assert [path.name for path in directory.iterdir()] == ["new.1.tmp"]
    assert read_queue(directory) == []
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o722, 0o702, 0o777])
def test_a_directory_that_others_can_write_is_not_read(directory: Path, mode: int) -> None:
    put(directory, "c1")
    directory.chmod(mode)
    with pytest.raises(Conflict, match="others than root"):
        read_queue(directory)


def test_a_directory_behind_a_link_is_not_read(directory: Path, tmp_path: Path) -> None:
    put(directory, "c1")
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises(Conflict, match="not a directory of the agent's"):
        read_queue(link)
