"""The launcher compiled for arm64, under emulation of the processor (qemu-user)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from weft.cni.queue import read_queue
from weft.model.attachment import AttachmentKey

COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64-static"
ATTACHMENT = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"not run: {COMPILER} or {EMULATOR} is missing (./dev test vm installs them)",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).parents[2] / "native" / "compile.py"
    spec = importlib.util.spec_from_file_location("weft_compile", source)
    assert spec is not None and spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    made = tmp_path_factory.mktemp("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEFT_CC", COMPILER)
        native.compile_launcher(made / "weft", run_dir=str(made / "run"))
    return made


def call(home: Path, verb: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["unshare", "--net", EMULATOR, home / "weft"],
        env={**ATTACHMENT, "CNI_COMMAND": verb, "PATH": os.defpath},
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_version_answers_on_arm64(home: Path) -> None:
    image = (home / "weft").read_bytes()
    assert image[18:20] == b"\xb7\0"  # e_machine: EM_AARCH64
    done = call(home, "VERSION", b'{"cniVersion":"0.4.0"}')
    assert done.returncode == 0
    assert json.loads(done.stdout)["cniVersion"] == "0.4.0"


def test_an_absent_agent_is_told_on_arm64(home: Path) -> None:
    done = call(home, "ADD", b'{"cniVersion":"1.0.0"}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


def test_a_delete_is_queued_under_the_same_name_on_arm64(home: Path) -> None:
    done = call(home, "DEL", b'{"name":"weft"}')
    assert (done.returncode, done.stdout) == (0, b"")
    (waiting,) = read_queue(home / "run" / "queue")
    assert waiting.path.stem == AttachmentKey("weft", "c1", "eth0").digest.hex()
    assert waiting.request.stdin == b'{"name":"weft"}'
