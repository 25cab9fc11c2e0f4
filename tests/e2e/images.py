"""A container image of one file, made here: no registry is asked."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def write_image(path: Path, name: str, program: Path, *command: str) -> None:
    """An OCI archive of an image called `name` that holds `program` as /bin/NAME-OF-PROGRAM, and
    runs `command`."""
    layer = _tar({f"bin/{program.name}": (program.read_bytes(), 0o755)})
    config = _json(
        architecture=ARCHITECTURES[platform.machine()],
        os="linux",
        config={"Cmd": command} if command else {},
        rootfs={"type": "layers", "diff_ids": [_digest(layer)]},
    )
    manifest = _json(
        schemaVersion=2,
        mediaType=f"{_OCI}.manifest.v1+json",
        config=_described(config, "config.v1+json"),
        layers=[_described(layer, "layer.v1.tar")],
    )
    named = {"annotations": {"io.containerd.image.name": name}}
    index = _json(schemaVersion=2, manifests=[_described(manifest, "manifest.v1+json") | named])
    blobs = {f"blobs/sha256/{_digest(x)[7:]}": (x, 0o644) for x in (layer, config, manifest)}
    layout = (_json(imageLayoutVersion="1.0.0"), 0o644)
    path.write_bytes(_tar({"oci-layout": layout, "index.json": (index, 0o644), **blobs}))


def _described(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
