"""Containers of OCI runtimes that are gone without their poststop hook.

A CNI runtime repeats DEL until it succeeds. A hook is executed once or never: who kills the
runtime, or removes its state by hand, leaves an attachment that nobody asks for again. Its link
goes with the container's network namespace, so what was made for a hook and has lost its link,
while its container is gone, is given back here; and so is one whose DEL was asked for and failed,
because the hook asks for no second. A runtime that stops a container and deletes it
later finds its DEL done, which is as good. What CNI runtimes made is left to their DEL and GC.
"""

from __future__ import annotations

import os
import time

from weft.agent.detach import Detacher
from weft.agent.ground import Ground
from weft.model.attachment import Attachment, AttachmentKey, NamespaceId
from weft.model.errors import WeftError

GRACE = 2.0  # seconds in which the hook of a container that just ended is expected


class Departed:
    """Who has lost a link, and since when."""

    def __init__(self, ground: Ground, detacher: Detacher) -> None:
        self._attachments = ground.attachments
        self._log = ground.log
        self._detacher = detacher
        self._since: dict[AttachmentKey, tuple[int, float]] = {}

    def ended(self, link: str) -> None:
        """The kernel has deleted a host link by itself."""
        attachment = self._attachments.of_link(link)
        if attachment is not None and _is_ours(attachment):
            self._note(attachment)

    async def look(self, *, whole: bool) -> None:
        """Give back what is due; with `whole`, also find what was not announced."""
        if whole:
            for attachment in filter(_is_ours, self._attachments.copied()):
                if attachment.key not in self._since and self._has_gone(attachment):
                    self._note(attachment)
        now = time.monotonic()
        for key, (begun, since) in list(self._since.items()):
            if now - since < GRACE:
                continue
            del self._since[key]
            held = self._attachments.get(key)
            if held is None or held.begun_ns != begun or not _is_ours(held):
                continue  # its hook has come, or its id is used again
            if self._has_gone(held):
                await self._give_back(held)

    def _note(self, attachment: Attachment) -> None:
        self._since[attachment.key] = attachment.begun_ns, time.monotonic()

    def _has_gone(self, attachment: Attachment) -> bool:
        """Its DEL has begun; or it is without its link, and its first process gone: somebody may
        have deleted the link of a container that lives, which is said and left to its owner."""
        if attachment.state == "leaving":
            return True
        return self._detacher.vanished(attachment) and not _lives(attachment)

    async def _give_back(self, held: Attachment) -> None:
        key = held.key
        try:
            await self._detacher.detach(key)
        except WeftError as error:  # the next whole look finds it again
            self._log.event("error", "NotReleased", str(key), error.message)
        else:
            words = "its container ended and no poststop hook came; what it had is given back"
            if held.state == "leaving":
                words = "its DEL, which had not come to its end, has now"
            self._log.event("info", "Released", str(key), words)


def _is_ours(attachment: Attachment) -> bool:
    return attachment.hooked and attachment.state != "intent"


def _lives(attachment: Attachment) -> bool:
    """Whether the path that its hook named still leads into its network namespace."""
    try:
        found = os.stat(attachment.sandbox)
    except OSError:
        return False
    return attachment.netns == NamespaceId(dev=found.st_dev, ino=found.st_ino)
