"""What the table of attachments answers, and what it forgets."""

from __future__ import annotations

from typing import Literal

from weft.agent.table import Attachments
from weft.model.attachment import Attachment, AttachmentKey, NamespaceId

HERE = NamespaceId(dev=4, ino=77)


def attachment(
    container: str, state: Literal["intent", "ready", "leaving"] = "ready", network: str = "net"
) -> Attachment:
    key = AttachmentKey(network, container, "eth0")
    return Attachment(
        key=key,
        state=state,
        host_link=key.host_link,
        mac=key.pod_mac,
        mtu=1500,
        addresses=(),
        netns=HERE,
    )


def test_collection_sees_what_a_failed_del_left_but_no_add_that_is_under_way() -> None:
    table = Attachments()
    for each in (
        attachment("stands"),
        attachment("half-gone", "leaving"),
        attachment("begun", "intent"),
        attachment("foreign", network="other"),
    ):
        table.put(each)
    assert {a.key.container for a in table.finished("net")} == {"stands", "half-gone"}


def test_attachments_of_a_namespace_are_known_until_they_are_dropped() -> None:
    table = Attachments()
    one, two = attachment("one"), attachment("two")
    for each in (one.having("intent"), one, two):
        table.put(each)
    assert {a.key.container for a in table.inside(HERE)} == {"one", "two"}
    assert table.inside(NamespaceId(dev=4, ino=78)) == []
    table.drop(one.key)
    assert table.inside(HERE) == [two]
    table.drop(two.key)
    assert table.inside(HERE) == []
