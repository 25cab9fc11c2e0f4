"""What the launcher's tests share: the launcher compiled for a directory of its own, a call of it
as a runtime would make it, and an agent that answers as it is told.

Calls run in a network namespace of their own (`unshare --net`), so that a DEL without agent, which
looks for a link to remove, never sees the machine's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.wire.local import (
    CniAnswer,
    CniRequest,
    Frame,
    Frames,
    decode_cni_request,
    encode_cni_answer,
)

COMPILE = Path(__file__).parents[2] / "native" / "compile.py"
SHORT = {  # milliseconds
    "ADD_LIMIT": "300",
    "ANSWER_LIMIT": "600",
    "STATUS_LIMIT": "400",
    "STDIN_LIMIT": "600",
}
CONFIG = b'{"cniVersion":"1.0.0","name":"weft","type":"weft"}'
ATTACHMENT = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}

Answering = Callable[[CniRequest, list[int]], bytes | None]


class Run:
    """How a call ended."""

    def __init__(self, status: int, stdout: bytes, stderr: bytes) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr

    def error(self) -> dict[str, Any]:
        """The one object on standard output of a failed call."""
        assert self.status == 1, (self.status, self.stdout, self.stderr)
        assert self.stdout.count(b"\n") == 1
        found = json.loads(self.stdout)
        assert set(found) == {"cniVersion", "code", "msg", "details"}
        assert b"Sanitizer" not in self.stderr
        return dict(found)


class Launcher:
    """A compiled launcher and the directory in which it looks for its agent."""

    def __init__(self, *, sanitize: bool) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="weft-l-"))
        self.run_dir = self.home / "run"
        self.program = self.home / "weft"
        spec = importlib.util.spec_from_file_location("weft_compile", COMPILE)
        assert spec is not None and spec.loader is not None
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        native.compile_launcher(
            self.program,
            run_dir=str(self.run_dir),
            sanitize=sanitize,
            defines={**SHORT, "WEFT_CONF_DIR": f'"{self.networks}"'},
        )

    @property
    def networks(self) -> Path:
        return self.home / "net.d"

    @property
    def queue(self) -> Path:
        return self.run_dir / "queue"

    @property
    def socket(self) -> Path:
        return self.run_dir / "agent.sock"

    def clear(self) -> None:
        for place in (self.run_dir, self.networks):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)

    def remove(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def call(
        self,
        verb: str | None,
        env: Mapping[str, str] = ATTACHMENT,
        stdin: bytes = CONFIG,
        before: Sequence[str] = (),
    ) -> Run:
        """Executes it with exactly this environment; `before` wraps it inside the namespace."""
        words = {**env} if verb is None else {**env, "CNI_COMMAND": verb}
        done = subprocess.run(
            ["unshare", "--net", "--", *before, "env", "-i", *_assignments(words), self.program],
            input=stdin,
            capture_output=True,
            timeout=20,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def hook(self, state: bytes, *options: str, env: Mapping[str, str] | None = None) -> Run:
        """Executes it as an OCI runtime executes a hook."""
        done = subprocess.run(
            [
                *("unshare", "--net", "--", "env", "-i"),
                *_assignments(env or {}),
                *(self.program, "oci-hook", *options),
            ],
            input=state,
            capture_output=True,
            timeout=20,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def agent(self, answering: Answering) -> Iterator[Agent]:
        """An agent for the time of a block."""
        agent = Agent(self.socket, answering)
        try:
            yield agent
        finally:
            agent.close()


def _assignments(words: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in words.items()]


class Agent:
    """Serves one connection after the other; keeps requests and what it saw of their ends."""

    def __init__(self, path: Path, answering: Answering) -> None:
        self.answering = answering
        self.requests: list[CniRequest] = []
        self.frames: list[Frame] = []
        self.gone = threading.Event()  # a launcher went away without waiting for its answer
        self.failure: BaseException | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _serve(self) -> None:
        try:
            while True:
                try:
                    peer, _ = self.listener.accept()
                except OSError:
                    return
                with peer:
                    self._answer(peer)
        except BaseException as error:  # shown by close(), in the test's own thread
            self.failure = error

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(10)
        cutter = Frames()
        descriptors: list[int] = []
        frames: list[Frame] = []
        while not frames:
            data, received, _, _ = socket.recv_fds(peer, 65536, 4)
            descriptors += received
            if not data:
                self.gone.set()
                return
            frames = cutter.feed(data)
        assert len(frames) == 1 and cutter.is_between_frames
        self.frames += frames
        request = decode_cni_request(frames[0].payload)
        self.requests.append(request)
        try:
            answer = self.answering(request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if answer is not None:
            with contextlib.suppress(BrokenPipeError):
                peer.sendall(answer)
            return
        if peer.recv(1) == b"":
            self.gone.set()


def succeed(stdout: bytes = b"") -> Answering:
    """An agent that answers every call with success."""
    return lambda request, descriptors: encode_cni_answer(CniAnswer(status=0, stdout=stdout))


def stay_silent(request: CniRequest, descriptors: list[int]) -> None:
    """An agent that hangs: it waits until the launcher goes away."""
