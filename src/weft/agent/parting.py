"""The DEL of the plugins that made an imported attachment, which its runtime now asks of us.

libcni's file has the chain's configuration, so its plugins are called as libcni would: in reverse
order, with the result, the arguments and the capabilities of the ADD. Where only host-local's files
are known, host-local alone is. Bounded in time, and never an error of our DEL: nobody will repeat
it, so each plugin is asked although another failed, and what could not be given back is an event.
Files are removed by those who wrote them; libcni's, whose part we play, only after success.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from weft.agent.events import Log
from weft.cni.former import cached_of
from weft.engines import plugins
from weft.kernel import namespaces
from weft.model.attachment import Attachment, Former
from weft.model.errors import NotReady, WeftError
from weft.wire.cni.former import HOST_LOCAL, Cached, release_request, requests

PATIENCE = 8.0
"""Seconds for a whole chain: the launcher waits ten for the answer to a DEL, then queues it."""
AT_ONCE = 4
"""Chains at a time; each is a few processes, and most of them wait for one lock."""


class Parting:
    """Calls former plugins. `part` never raises."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pool: ThreadPoolExecutor | None = None

    async def part(self, attachment: Attachment) -> None:
        """Have the former chain take back what it made for this container."""
        key, former = str(attachment.key), attachment.former
        assert former is not None
        if self._pool is None:  # most nodes never need it
            self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="weft-parting")
        loop = asyncio.get_running_loop()
        try:
            wrong = await loop.run_in_executor(self._pool, _part, attachment, former)
        except (WeftError, OSError, ValueError) as error:
            wrong = [str(error)]
        if wrong:
            words = f"what other plugins made for it may be left: {'; '.join(wrong)}"
            self._log.event("warning", "FormerNotReleased", key, words)
        else:
            self._log.line("info", "given back by the plugins that made it", attachment=key)

    def close(self) -> None:
        """End the workers after what they are doing."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _part(attachment: Attachment, former: Former) -> list[str]:
    """On a worker. What could not be given back, in words."""
    deadline = time.monotonic() + PATIENCE
    cached = cached_of(former.cache, attachment.key) if former.cache else None
    if cached is not None and cached.list is not None:
        wrong = list(_chain(attachment, former, cached, deadline))
    else:
        wrong = list(_reserved(attachment, former, deadline))
        if cached is not None:
            wrong.append(f"{former.cache} does not say which plugins made its links and rules")
    if cached is not None and not wrong:
        with suppress(FileNotFoundError):
            os.unlink(former.cache)
    return wrong


def _chain(
    attachment: Attachment, former: Former, cached: Cached, deadline: float
) -> Iterator[str]:
    variables = _variables(attachment, former) | {
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in cached.args)
    }
    asked = requests(cached)
    for number, (type_, conf) in enumerate(asked):
        # one that hangs leaves the others their share
        share = max(0.0, deadline - time.monotonic()) / (len(asked) - number)
        yield from _call(type_, former, variables, conf, share)


def _reserved(attachment: Attachment, former: Former, deadline: float) -> Iterator[str]:
    """host-local's DEL, in each directory that still has a file for the container."""
    key = attachment.key
    left = [path for path in former.reservations if os.path.lexists(path)]
    places = {path.rpartition("/")[0]: path.rpartition("/")[2].replace("_", ":") for path in left}
    for directory, address in places.items():
        share = max(0.0, deadline - time.monotonic())
        above = directory.rpartition("/")[0]
        conf = release_request(key.network, address, above)
        yield from _call(HOST_LOCAL, former, _variables(attachment, former), conf, share)


def _call(
    type_: str,
    former: Former,
    variables: dict[str, str],
    conf: dict[str, object],
    patience: float,
) -> Iterator[str]:
    try:
        if not patience:
            raise NotReady(f"{type_}: no time was left for it")
        plugins.call(plugins.find(type_, former.plugins), variables, conf, patience=patience)
    except WeftError as error:
        yield error.message


def _variables(attachment: Attachment, former: Former) -> dict[str, str]:
    key = attachment.key
    return {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": key.container,
        "CNI_IFNAME": key.ifname or "eth0",
        "CNI_NETNS": _place(attachment),
        "CNI_PATH": ":".join(former.plugins),
    }


def _place(attachment: Attachment) -> str:
    """Where the namespace of an imported attachment can be opened; "" where it is dead, unknown,
    or another's by now."""
    found = namespaces.locate(attachment.sandbox)
    known = attachment.netns
    if found is None or (known is not None and found[1] != (known.dev, known.ino)):
        return ""
    return found[0]


def is_gone(attachment: Attachment) -> bool:
    """Whether the namespace of an imported attachment is dead, as far as its path tells."""
    return bool(attachment.sandbox) and not _place(attachment)


def is_off_record(attachment: Attachment) -> bool:
    """Whether the former plugins have forgotten an imported attachment: their DEL was called by
    who still knows them, and its namespace, where one is on record, is gone."""
    former = attachment.former
    assert former is not None
    written = (former.cache, *former.reservations)
    if any(os.path.lexists(path) for path in written if path):
        return False
    return not attachment.sandbox or is_gone(attachment)
