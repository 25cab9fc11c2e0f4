"""Connections to the members of an etcd cluster: which one is asked, how long, and as whom.

One member is asked at a time; one that does not answer is left for the next in the list, after a
pause that grows and is drawn at random, so that a thousand nodes do not come back as one. A
connection without an answer is found dead by HTTP/2 pings (every 8 s, 5 s to answer, which is
within what etcd allows by default: `--grpc-keepalive-min-time=5s`), also one whose packets vanish.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import msgspec
from grpc import aio

from weft.model.errors import Invalid, NotReady, WeftError
from weft.store.etcd.messages import MESSAGES, METHODS

CONNECT = 3.0  # seconds for one member to be reached
ANSWER = 8.0  # seconds for one answer
PAUSES = (0.1, 10.0)  # seconds: the first and the longest pause between two tries
DENIED = "etcd refuses this user: {}; check username, password and the user's roles"
UNKNOWN = "whether a change was made is not known"
_OPTIONS = (
    ("grpc.keepalive_time_ms", 8_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),  # its pings would count as too many, too
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Where an etcd cluster is and who we are there."""

    endpoints: tuple[str, ...]
    """`https://HOST:2379` or `http://`, at least one; all of one scheme."""
    ca: str = ""  # path of a PEM file; "" for the system's
    cert: str = ""
    key: str = ""
    username: str = ""
    password_file: str = ""


class Calls:
    """One cluster. Its methods belong to one event loop."""

    def __init__(self, access: Access) -> None:
        """Raises `Invalid` naming the setting; nothing is connected yet."""
        self._targets = [_target(url) for url in check(access)]
        self._secure = access.endpoints[0].startswith("https:")
        self.access = access
        random.shuffle(self._targets)  # not every node at the same member
        self._channel: aio.Channel | None = None
        self._at = 0
        self._token = ""
        self._renewing = asyncio.Lock()
        self.trouble = ""  # what the last call met, for a person; "" while all is well

    @property
    def member(self) -> str:
        """HOST:PORT that is asked now."""
        return self._targets[self._at]

    async def ask(self, method: str, request: Any, *, again: bool = False) -> Any:
        """One answer. `again`: a call that may be made twice, as a read: then every member is
        tried once. Raises NotReady; after a write whose answer is missing it is not known whether
        it was done, and the message says so."""
        tries = len(self._targets) if again else 1
        for remaining in reversed(range(tries)):
            channel = await self._connected()
            try:
                answer = await self._once(channel, method, request)
            except aio.AioRpcError as error:
                if self._passes(error):
                    await self._leave(channel)
                    if remaining:
                        continue
                raise self._refused(error, unknown=not again) from error
            except (asyncio.CancelledError, aio.UsageError):
                if is_cancelled():
                    raise
                self.trouble = f"the connection to etcd was given up; {UNKNOWN}"
                if not remaining:
                    raise NotReady(self.trouble, reason="store-unavailable") from None
                continue
            self.trouble = ""
            return answer
        raise AssertionError("unreachable")

    async def stream(self, method: str) -> Any:
        """A two-way stream to the member that is asked now. Raises NotReady if there is none."""
        as_whom = await self._as_whom()
        channel = await self._connected()
        return _method(channel, method)(metadata=(("hasleader", "true"), *as_whom))

    async def keep(self, lease: int) -> bool:
        """Whether a lease was there; it lives on then. Raises NotReady."""
        stream = await self.stream("keep")
        try:
            await stream.write(MESSAGES["LeaseKeepAliveRequest"](ID=lease))
            answer = await asyncio.wait_for(stream.read(), ANSWER)
        except aio.AioRpcError as error:
            raise await self.failed(error) from error
        except (TimeoutError, asyncio.CancelledError, aio.UsageError):
            if is_cancelled():
                raise
            self.trouble = f"etcd at {self.member} does not answer"
            raise NotReady(self.trouble, reason="store-unavailable") from None
        finally:
            stream.cancel()
        return answer is not aio.EOF and answer.TTL > 0

    async def failed(self, error: aio.AioRpcError) -> WeftError:
        """What a stream met; the next one goes to another member."""
        if self._channel is not None and self._passes(error):
            await self._leave(self._channel)
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            self.doubt_token()
        return self._refused(error, unknown=False)

    def doubt_token(self) -> None:
        """Something was refused: the next call names the user and the password again."""
        self._token = ""

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    # -- one member after the other

    async def _connected(self) -> aio.Channel:
        """A channel that is up; each member is given its time once."""
        why = {}
        for _ in self._targets:
            channel = self._channel = self._channel or self._open(self.member)
            try:
                if await asyncio.wait_for(_is_up(channel), CONNECT):
                    return channel
                why[self.member] = await _obstacle(channel)
            except TimeoutError:
                why[self.member] = "no answer"
            except aio.UsageError:
                why[self.member] = "given up"  # by another task
            await self._leave(channel)
        tried = "; ".join(f"{member}: {words}" for member, words in why.items())
        self.trouble = f"no member of etcd can be reached ({tried})"
        raise NotReady(self.trouble, reason="store-unavailable")

    def _open(self, target: str) -> aio.Channel:
        if not self._secure:
            return aio.insecure_channel(target, _OPTIONS)
        wanted = (self.access.ca, self.access.key, self.access.cert)
        try:
            files = [_content(path) if path else None for path in wanted]
        except OSError as error:
            raise NotReady(
                f"a file for etcd's TLS cannot be read: {error}", reason="store-unavailable"
            ) from error
        credentials = grpc.ssl_channel_credentials(*files)
        return aio.secure_channel(target, credentials, _OPTIONS)

    async def _leave(self, channel: aio.Channel) -> None:
        """The member is not good: the next one's turn, unless somebody was quicker."""
        if channel is self._channel:
            self._channel = None
            self._at = (self._at + 1) % len(self._targets)
            await channel.close()

    # -- one call

    async def _once(self, channel: aio.Channel, method: str, request: Any) -> Any:
        call = _method(channel, method)
        try:
            return await call(request, timeout=ANSWER, metadata=await self._as_whom())
        except aio.AioRpcError as error:
            if not self.access.username or not _token_is_old(error):
                raise
        self._token = ""  # etcd forgets tokens, e.g. when it restarts; it has done nothing
        return await call(request, timeout=ANSWER, metadata=await self._as_whom())

    async def _as_whom(self) -> tuple[tuple[str, str], ...]:
        if not self.access.username:
            return ()
        async with self._renewing:
            if not self._token:
                self._token = await self._authenticate()
            return (("token", self._token),)

    async def _authenticate(self) -> str:
        channel = await self._connected()
        try:
            password = _content(self.access.password_file).decode().strip("\n")
        except OSError as error:
            raise NotReady(
                f"the password for etcd cannot be read: {error}", reason="store-unavailable"
            ) from error
        words = MESSAGES["AuthenticateRequest"](name=self.access.username, password=password)
        try:
            answer = await _method(channel, "authenticate")(words, timeout=ANSWER)
        except aio.AioRpcError as error:
            raise self._refused(error, unknown=False) from error
        return str(answer.token)

    def _passes(self, error: aio.AioRpcError) -> bool:
        """Whether another member may do better."""
        return error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.CANCELLED,
        )

    def _refused(self, error: aio.AioRpcError, *, unknown: bool) -> WeftError:
        words = error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
                self.trouble = DENIED.format(words)
            case grpc.StatusCode.INVALID_ARGUMENT if "authentication" in words or "user" in words:
                self.trouble = DENIED.format(words)
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in words:
                return Invalid(
                    f"a commit is too large for etcd: {words}", field="key", reason="invalid-object"
                )
            case grpc.StatusCode.INVALID_ARGUMENT:
                return Invalid(f"etcd: {words}", field="key", reason="invalid-object")
            case _ if unknown and self._passes(error):
                self.trouble = f"etcd at {self.member}: {words}; {UNKNOWN}"
            case _:
                self.trouble = f"etcd at {self.member}: {words}"
        return NotReady(self.trouble, reason="store-unavailable")


def is_cancelled() -> bool:
    """Whether the current task was told to end. A call is cancelled, too, when another task gives
    its connection up, and that must not end who waits for it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Pause:
    """Pauses that grow, drawn at random between half and the whole."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._next = PAUSES[0]

    async def wait(self) -> None:
        """The next one."""
        pause, self._next = self._next, min(2 * self._next, PAUSES[1])
        await asyncio.sleep(self._draw(pause / 2, pause))

    def reset(self) -> None:
        """All is well: the next pause is a short one again."""
        self._next = PAUSES[0]


def check(access: Access) -> tuple[str, ...]:
    """The endpoints; raises `Invalid` naming the setting that is wrong."""
    if not access.endpoints:
        raise _invalid("endpoints", "names no member; give at least one, as https://HOST:2379")
    schemes = {urlsplit(url).scheme for url in access.endpoints}
    if not schemes <= {"http", "https"} or len(schemes) > 1:
        raise _invalid("endpoints", "must all begin with http:// or all with https://")
    if bool(access.cert) != bool(access.key):
        raise _invalid("cert", "and key belong together: name both or none")
    if (access.ca or access.cert) and schemes == {"http"}:
        raise _invalid("ca", "and cert need endpoints that begin with https://")
    if bool(access.username) != bool(access.password_file):
        raise _invalid("username", "and passwordFile belong together: name both or none")
    return access.endpoints


def _target(url: str) -> str:
    """HOST:PORT of a URL, as gRPC wants it; an IPv6 address keeps its brackets."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 2379
    except ValueError:
        host = None
    if not host or parts.path.strip("/") or parts.query or parts.username:
        raise _invalid("endpoints", f"{url[:80]!a} is not a URL such as https://HOST:2379")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _content(path: str) -> bytes:
    return Path(path).read_bytes()  # small, and read again: certificates are renewed in place


def _invalid(name: str, words: str) -> Invalid:
    return Invalid(f"store.etcd.{name} {words}", field=f"store.etcd.{name}")


def _method(channel: aio.Channel, name: str) -> Any:
    path, asked, answered = METHODS[name]
    kind = channel.stream_stream if name in ("watch", "keep") else channel.unary_unary
    return kind(
        path,
        request_serializer=MESSAGES[asked].SerializeToString,
        response_deserializer=MESSAGES[answered].FromString,
    )


async def _is_up(channel: aio.Channel) -> bool:
    """Wait until the channel is up, or has failed to come up."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        ):
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True


async def _obstacle(channel: aio.Channel) -> str:
    """Why a channel did not come up: only a call is told."""
    try:
        await _method(channel, "range")(MESSAGES["RangeRequest"](key=b"\0"), timeout=0.5)
    except aio.AioRpcError as error:
        return (error.details() or error.code().name).rpartition("; last error: ")[2][:200]
    return "it came up just now"


def _token_is_old(error: aio.AioRpcError) -> bool:
    words = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or "invalid auth token" in words
