"""The journal survives kill -9, knows its boot, and refuses what it cannot read."""

import errno
import sqlite3
from pathlib import Path

import pytest

from weft.agent import journal_file
from weft.agent.journal import FORMAT, Journal
from weft.model.attachment import (
    ALIAS_LIMIT,
    KEY_LIMIT,
    Assigned,
    Attachment,
    AttachmentKey,
    PodRef,
    link_alias,
    read_adoption,
    read_alias,
)
from weft.model.errors import Unsupported, WeftError


def attachment(container: str = "c1", network: str = "net") -> Attachment:
    key = AttachmentKey(network, container, "eth0")
    return Attachment(
        key=key,
        state="intent",
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=(
            Assigned(address="10.244.0.5", pool="v4", block="10.244.0.0/26", sequence=3),
            Assigned(address="fd00:1:2:3:4:5:6:7", pool="v6", block="fd00::/122", sequence=1),
        ),
        pod=PodRef(namespace="default", name="web"),
        labels={"app": "web"},
    )


def test_an_attachment_comes_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment())
    journal.close()
    again = Journal(tmp_path / "j", "boot1")
    assert list(again.attachments()) == [attachment()]
    assert again.fresh == ""
    again.close()


def test_a_journal_of_another_boot_is_dropped_and_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment())
    journal.close()
    again = Journal(tmp_path / "j", "boot2")
    assert list(again.attachments()) == []
    assert "rebooted" in again.fresh
    again.close()


def test_a_journal_of_a_newer_weft_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, "boot1").close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(FORMAT + 1),))
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Unsupported, match="format"):
        Journal(path, "boot1")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [b"not a database at all" * 400, b"", b"SQLite format 3\0" * 300]
)
def test_a_damaged_journal_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(damage)
    journal = Journal(path, "boot1")
    journal.put(attachment())
    assert [a.key.container for a in journal.attachments()] == ["c1"]
    journal.close()


def test_a_link_planted_at_the_journals_name_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "j").symlink_to(target)
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment())
    journal.close()
    assert target.read_text() == "precious"


def test_dropping_keeps_the_addresses_cooling(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment())
    journal.drop(attachment().key, (("10.244.0.5", 3),), 12.5)
    assert list(journal.attachments()) == []
    assert journal.cooling() == [("10.244.0.5", 3, 12.5)]
    journal.warmed(13.0)
    assert journal.cooling() == []
    journal.close()


def test_keys_with_dashes_do_not_collide(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment(network="a-b", container="c"))
    journal.put(attachment(network="a", container="b-c"))
    assert len(list(journal.attachments())) == 2
    journal.close()


def test_a_journal_that_is_gone_is_an_error_and_not_a_silent_loss(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.close()
    with pytest.raises(WeftError, match="while the agent ran"):
        journal.put(attachment())


def test_the_alias_says_what_the_journal_said() -> None:
    record = read_alias(link_alias(attachment()))
    assert record is not None
    assert record.key == attachment().key
    assert record.mac == attachment().mac
    assert record.addresses == ("10.244.0.5", "fd00:1:2:3:4:5:6:7")
    assert (record.masquerade, record.via4, record.via6) == (True, True, True)
    assert record.pod == PodRef(namespace="default", name="web")


def test_the_longest_key_fits_into_an_alias() -> None:
    network = "n" * 60
    long = attachment(network=network, container="c" * (KEY_LIMIT - 60 - 4))
    alias = link_alias(long)
    assert len(alias) <= ALIAS_LIMIT
    record = read_alias(alias)
    assert record is not None
    assert record.key == long.key


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "weft:2 a b c d e f",
        "weft:1 a b",
        "eth0",
        "weft:1 a b c zz - -",
        "weft:1 a b c 0a00 - -",
    ],
)
def test_what_is_not_our_alias_is_not_read(alias: str) -> None:
    assert read_alias(alias) is None


def test_what_is_no_address_in_a_record_is_passed_over() -> None:
    for start, reader in (("weft:1", read_alias), ("weft+1", read_adoption)):
        record = reader(f"{start} a b c 0a0000000001 m zz,10.0.0.9,fe80::1%x,")
        assert record is not None and record.addresses == ("10.0.0.9",)


def test_a_journal_that_another_process_holds_stays_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    holder = connect(tmp_path / "j")
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, timeout=0))
    with pytest.raises(WeftError, match="locked"):
        Journal(tmp_path / "j", "boot1")
    holder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["j"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET value = 'many' WHERE name = 'format'",
        "DROP TABLE meta; CREATE TABLE meta (other TEXT)",
    ],
)
def test_a_journal_without_a_readable_format_is_set_aside(tmp_path: Path, statement: str) -> None:
    Journal(tmp_path / "j", "boot1").close()
    with sqlite3.connect(tmp_path / "j") as db:
        db.executescript(statement)
    db.close()
    journal = Journal(tmp_path / "j", "boot1")
    assert "damaged" in journal.fresh
    journal.close()
    assert (tmp_path / "j.damaged").exists()


@pytest.mark.parametrize("trick", ["link", "mode"])
def test_a_journal_is_not_written_anew_where_others_can_write(tmp_path: Path, trick: str) -> None:
    place, theirs = tmp_path / "run", tmp_path / "theirs"
    place.mkdir(mode=0o700)
    journal = Journal(place / "j", "boot1")
    journal.put(attachment())
    content = journal.read()
    place.rename(tmp_path / "moved")
    theirs.mkdir()
    if trick == "link":
        place.symlink_to(theirs)
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(WeftError, match="not safe to use"):
        journal.renew(content)
    assert "not safe to use" in journal.trouble
    assert list(theirs.iterdir()) == []
    if trick == "mode":
        assert list(place.iterdir()) == []
        place.chmod(0o700)
        journal.renew(content)
        assert journal.trouble == ""
        assert list(journal.attachments()) == [attachment()]
    journal.close()


def test_a_journal_that_cannot_be_opened_again_says_so_to_every_write_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", "boot1")
    journal.put(attachment())
    content = journal.read()

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        # the disk refuses everything: SQLite's log cannot even be removed when the file is closed
        broken.setattr(journal, "_missing", lambda: None)
        broken.setattr(journal, "_is_sound", lambda: False)
        broken.setattr(journal_file, "set_aside", fail)
        with pytest.raises(WeftError, match="Input/output error"):
            journal.renew(content)
        key = attachment().key
        for write in (
            lambda: journal.put(attachment()),
            lambda: journal.drop(key),
            lambda: journal.renew(content),
            journal.read,
        ):
            with pytest.raises(WeftError, match="Input/output error") as caught:
                write()
            assert caught.value.reason == "journal-unwritable"
    journal.renew(content)
    assert journal.trouble == ""
    assert list(journal.attachments()) == [attachment()]
    journal.close()
