"""Containers of hooks that are gone: who is given back, and who is left alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from weft.agent import departed
from weft.agent.departed import Departed
from weft.agent.events import Log
from weft.agent.table import Attachments
from weft.model.attachment import Attachment, AttachmentKey, NamespaceId
from weft.model.errors import KernelRefused

HERE = os.stat("/proc/self/ns/net")


class Scene:
    """An agent's table and a detacher; links that are in `links` can be looked up."""

    def __init__(self) -> None:
        self.attachments = Attachments()
        self.log = Log("error")
        self.links: set[str] = set()
        self.failing = False
        self.departed = Departed(self, self)  # type: ignore[arg-type]

    def vanished(self, attachment: Attachment) -> bool:
        return attachment.host_link not in self.links

    async def detach(self, key: AttachmentKey) -> None:
        held = self.attachments.get(key)
        if self.failing and held is not None:
            self.attachments.put(held.having("leaving"))
            raise KernelRefused(16, "delete link", key.host_link)
        self.attachments.drop(key)

    def add(self, container: str, **changed: Any) -> Attachment:
        key = AttachmentKey("weft", container, "eth0")
        fields: dict[str, Any] = {
            "key": key,
            "state": "ready",
            "host_link": key.host_link,
            "mac": key.pod_mac,
            "mtu": 1500,
            "addresses": (),
            "netns": NamespaceId(dev=1, ino=1),
            "sandbox": "/proc/999999999/ns/net",
            "hooked": True,
        }
        made = Attachment(**{**fields, **changed})
        self.attachments.put(made)
        return made

    def end(self, attachment: Attachment) -> None:
        self.links.discard(attachment.host_link)
        self.departed.ended(attachment.host_link)

    def look(self, *, whole: bool = False) -> set[str]:
        """Who is attached after a look."""
        asyncio.run(self.departed.look(whole=whole))
        return {each.key.container for each in self.attachments}

    def events(self) -> list[str]:
        return [event.reason for event in self.log.events]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the time pass in which a hook is waited for."""
    passed = [0.0]
    real = departed.time.monotonic
    monkeypatch.setattr(departed.time, "monotonic", lambda: real() + passed[0])

    def pass_by() -> None:
        passed[0] += departed.GRACE

    return pass_by


def test_a_hook_has_time_to_come(scene: Scene, later: Callable[[], None]) -> None:
    scene.end(scene.add("c1"))
    assert scene.look() == {"c1"}
    later()
    assert scene.look() == set()
    assert scene.events() == ["Released"]


def test_what_was_not_announced_is_found(scene: Scene, later: Callable[[], None]) -> None:
    scene.links.add(scene.add("lives").host_link)
    scene.add("gone")
    assert scene.look() == {"lives", "gone"}
    assert scene.look(whole=True) == {"lives", "gone"}
    later()
    assert scene.look() == {"lives"}


@pytest.mark.parametrize(
    "changed",
    [
        {"hooked": False},
        {"state": "intent"},
        {"sandbox": "/proc/self/ns/net", "netns": NamespaceId(dev=HERE.st_dev, ino=HERE.st_ino)},
    ],
    ids=["of a CNI runtime", "being made", "whose process lives"],
)
def test_others_are_left_alone(
    scene: Scene, later: Callable[[], None], changed: dict[str, Any]
) -> None:
    scene.end(scene.add("c1", **changed))
    assert scene.look(whole=True) == {"c1"}
    later()
    assert scene.look(whole=True) == {"c1"}
    assert scene.events() == []


def test_a_process_id_that_is_used_again_is_not_the_container(
    scene: Scene, later: Callable[[], None]
) -> None:
    scene.end(scene.add("c1", sandbox="/proc/self/ns/net"))
    later()
    assert scene.look() == set()


def test_a_container_of_the_same_id_is_another_one(scene: Scene, later: Callable[[], None]) -> None:
    scene.end(scene.add("c1", begun_ns=1))
    scene.links.add(scene.add("c1", begun_ns=2).host_link)
    later()
    assert scene.look() == {"c1"}


def test_what_the_kernel_refuses_is_tried_again(scene: Scene, later: Callable[[], None]) -> None:
    scene.failing = True
    scene.end(scene.add("c1"))
    later()
    assert scene.look() == {"c1"}
    assert scene.events() == ["NotReleased"]
    scene.failing = False
    scene.look(whole=True)
    later()
    assert scene.look(whole=True) == set()


def test_a_del_that_failed_is_finished_whether_the_link_went_or_not(
    scene: Scene, later: Callable[[], None]
) -> None:
    """The hook that asked for it is executed once."""
    scene.links.add(scene.add("c1", state="leaving").host_link)
    assert scene.look(whole=True) == {"c1"}
    later()
    assert scene.look() == set()


def test_a_link_of_nobody_is_nothing(scene: Scene) -> None:
    scene.departed.ended("wfnobody")
    assert scene.look(whole=True) == set()
