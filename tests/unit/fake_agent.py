"""An agent without a kernel: the real API over a store in memory, on a real unix socket.

`Fake` is what the agent would provide; tests fill it. `serving` runs the API in a thread, so
that the command line can be tested as a person uses it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from weft.agent.api import Api
from weft.agent.events import Log
from weft.agent.ports import Entry
from weft.agent.server import Connection, Server
from weft.agent.table import Attachments
from weft.model.attachment import Assigned, Attachment, AttachmentKey, PodRef
from weft.model.errors import NotFound
from weft.store.memory import MemoryStore
from weft.wire.api import IpamCheck, IpamShow, Params, Released, encode_params
from weft.wire.local import ApiRequest, Frame, Frames, Kind, encode_api
from weft.wire.status import PoolUse, Status

CREATED = 1_750_000_000.0


class Fake:
    """The services of an agent, as plain attributes."""

    def __init__(self) -> None:
        self.node = "node-a"
        self.store = MemoryStore()
        self.log = Log(level="error")
        self.attachments = Attachments()
        self.ports: list[Entry] = []
        self.answer = Status(version="0.1.0", node="node-a", ready=True)
        self.use = IpamShow(node="node-a")
        self.audit = IpamCheck()
        self.released: list[tuple[str, bool]] = []
        self.stop_streams: Callable[[], None] = lambda: None  # set while it is served

    async def status(self) -> Status:
        return self.answer

    def ipam_show(self) -> IpamShow:
        return self.use

    async def ipam_check(self) -> IpamCheck:
        return self.audit

    async def ipam_release(self, address: str, force: bool) -> Released:
        if address not in {each.address for each in self.use.addresses}:
            raise NotFound(f"{address} is not in use on this node")
        self.released.append((address, force))
        return Released(address=address, pool="default", owner="weft/c1/eth0", cooling=30.0)

    def attach(self, container: str, *, pod: str = "", address: str = "10.244.0.5") -> Attachment:
        key = AttachmentKey("weft", container, "eth0")
        namespace, _, name = pod.partition("/")
        attachment = Attachment(
            key=key,
            state="ready",
            host_link=key.host_link,
            mac=key.pod_mac,
            mtu=1500,
            addresses=(
                Assigned(address=address, pool="default", block="10.244.0.0/26", sequence=0),
            ),
            pod=PodRef(namespace=namespace, name=name),
            labels={"app": name} if name else {},
            created=CREATED,
            version="1.0.0",
        )
        self.attachments.put(attachment)
        return attachment

    def uses(self, pool: str, used: int) -> None:
        self.use = IpamShow(
            node=self.node, pools=(PoolUse(name=pool, cidr="10.0.0.0/24", size=254, used=used),)
        )


class Caller:
    """A connection that keeps what it is sent."""

    def __init__(self, group: str = "") -> None:
        self.gone = asyncio.Event()
        self.group = group
        self.pending = 0
        self.sent: list[Frame] = []
        self.ended = False
        self._frames = Frames()

    def send(self, data: bytes, *, last: bool = True) -> bool:
        if self.gone.is_set():
            return False
        self.sent += self._frames.feed(data)
        self.ended = self.ended or last
        return True

    def values(self) -> list[Any]:
        """What the frames say, decoded as far as JSON goes."""
        return [msgspec.json.decode(frame.payload) for frame in self.sent]


def request(method: str, params: Params | dict[str, Any]) -> Frame:
    """The frame that a command line would send."""
    plain = params if isinstance(params, dict) else encode_params(params)
    (frame,) = Frames().feed(encode_api(ApiRequest(method=method, params=plain)))
    return frame


async def ask(fake: Fake, method: str, params: Params | dict[str, Any]) -> dict[str, Any]:
    """One call: `{"result": ...}` or the error's members."""
    caller = Caller()
    await Api(fake).handle(caller, request(method, params))
    assert caller.ended
    (frame,) = caller.sent
    assert frame.kind in (Kind.API_ANSWER, Kind.API_ERROR)
    answer: dict[str, Any] = msgspec.json.decode(frame.payload)
    assert ("result" in answer) == (frame.kind == Kind.API_ANSWER)
    return answer


async def _serve(api: Api, path: Path, started: threading.Event, stop: asyncio.Event) -> None:
    """The agent's own server, so that the command line meets what it meets in earnest."""

    def handle(connection: Connection, frame: Frame, descriptor: int | None) -> Any:
        assert descriptor is None
        return api.handle(connection, frame)

    server = Server(path, handle, Log(level="error"))
    server.listen()
    server.serve()
    started.set()
    await stop.wait()
    api.close()
    await server.stop()


@contextmanager
def serving(fake: Fake, path: Path) -> Iterator[None]:
    """Run the API on a socket at `path` until the block ends."""
    started = threading.Event()
    held: dict[str, Any] = {}

    def run() -> None:
        async def main() -> None:
            held["stop"], held["loop"] = asyncio.Event(), asyncio.get_running_loop()
            api, loop = Api(fake), held["loop"]
            fake.stop_streams = lambda: loop.call_soon_threadsafe(api.close)
            await _serve(api, path, started, held["stop"])

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(5)
        yield
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(10)
        assert not thread.is_alive()
