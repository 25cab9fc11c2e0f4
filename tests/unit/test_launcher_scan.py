"""The launcher's JSON scanner and its derived names, against Python's own json and hashlib.

The scanner runs in a driver compiled with address and undefined-behaviour checks, which ends at
the first byte read beyond a text.
"""

from __future__ import annotations

import importlib.util
import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weft.model.attachment import AttachmentKey

NATIVE = Path(__file__).parents[2] / "native"
DEEPEST = 64

SEEDS = [
    b'{"cniVersion":"1.0.0","name":"weft","type":"weft","ipam":{},"dns":{"search":[]}}',
    b'{"NAME":"a","name":"b","cniVersion":"0.4.0"}',
    b'{"plugins":[{"name":"inner","cniVersion":"9"}],"x":{"name":"deep"},"name":"out"}',
    rb'{"n\u0061me":"w\u00e9ft","CNIVERSION":"1.1.0\n","k":"\ud83d\ude00"}',
    b'{"name":null,"cniVersion":5,"a":[1,-0.5e+3,true,false,null,"\xc3\xa9"]}',
    b' {\t"name" :\r\n"x" } ',
    b'{"name":{"a":[]},"cniVersion":["1"]}',
]
FIXED = [
    b"",
    b" ",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b'"name"',
    b"\xef\xbb\xbf{}",
    '{"name":"x"}'.encode("utf-16"),
    b'{"name":NaN}',
    b'{"a":Infinity,"name":"x"}',
    b'{"name":"x"}{}',
    b'{"name":"x",}',
    b'{"a":[1,],"name":"x"}',
    b'{"a":01}',
    b'{"a":1.}',
    b'{"a":-}',
    b'{"name":"\xff"}',
    b'{"name":"\xed\xa0\x80"}',
    b'{"name":"\xc0\xaf"}',
    b'{"name":"\xe0\x82\xaf"}',
    b'{"name":"\xe0\xa0\x80"}',
    b'{"name":"\xf0\x82\x82\xac"}',
    b'{"name":"\xf0\x90\x80\x80"}',
    b'{"name":"\xf4\x8f\xbf\xbf"}',
    b'{"name":"\xf4\x90\x80\x80"}',
    b'{"name":"\xf5\x80\x80\x80"}',
    b'{"name":"\xe2\x82"}',
    rb'{"name":"\ud800"}',
    rb'{"name":"\ud800\u0041"}',
    rb'{"name":"\udc00"}',
    rb'{"name":"\u00g0"}',
    b'{"name":"a\nb"}',
    b'{"name":"a\\u0000b"}',
    b'{"cniVersion":"' + b"9" * 1_000_000 + b'","name":"x"}',
    b'{"a":' * 100_000,
    b"[" * 100_000,
    b'{"a":' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b',"name":"x"}',
    b'{"a":' + b"[" * DEEPEST + b"]" * DEEPEST + b',"name":"x"}',
    b'{"a":{"b":[{"c":[]}]},"name":"x"}',
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("weft_compile", NATIVE / "compile.py")
    assert spec is not None and spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    made: Path = native.compile_launcher(
        tmp_path_factory.mktemp("driver") / "scan", sanitize=True, driver=True
    )
    return made


def scan(driver: Path, texts: list[bytes]) -> list[str]:
    records = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    done = subprocess.run([driver], input=records, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode().splitlines()


def has_lone_surrogate(value: Any) -> bool:
    return any(0xD800 <= ord(c) <= 0xDFFF for c in json.dumps(value, ensure_ascii=False))


def depth_of(value: Any) -> int:
    match value:
        case dict():
            return 1 + max((depth_of(one) for one in value.values()), default=0)
        case list():
            return 1 + max((depth_of(one) for one in value), default=0)
    return 0


def expected(text: bytes) -> tuple[bool, str, str]:
    """What Python's json makes of a text, in the driver's words."""

    def refuse(_: str) -> None:
        raise ValueError

    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is the last to be complete
        return {f"{place}{name}": value for place, (name, value) in enumerate(found)}

    try:
        value = json.loads(text.decode(), object_pairs_hook=keep, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False, "", ""
    if not isinstance(value, dict) or has_lone_surrogate(value) or depth_of(value) > DEEPEST:
        return False, "", ""
    words = {"name": "-", "cniversion": "-"}
    for key, one in pairs:
        ascii_lower = "".join(c.lower() if c.isascii() else c for c in key)
        if ascii_lower in words:
            word = "-" if one is None else "!"
            words[ascii_lower] = "=" + one.encode().hex() if isinstance(one, str) else word
    return True, words["name"], words["cniversion"]


def assert_agreement(driver: Path, texts: list[bytes]) -> int:
    accepted = 0
    for text, line in zip(texts, scan(driver, texts), strict=True):
        wanted, name, version = expected(text)
        got = line.split(" ")
        assert got[0] == str(int(wanted)), text[:200]
        if wanted:
            accepted += 1
            assert got[1:] == [name, version], text[:200]
    return accepted


def mutated(rng: random.Random) -> bytes:
    text = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0:
                text[at:at] = rng.choice(
                    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\u00"]
                )
            case 1:
                del text[at : at + rng.randint(1, 6)]
            case 2:
                text[at : at + 1] = rng.randbytes(1)
            case 3:
                part = bytes(rng.choice(SEEDS))
                text[at:at] = part[: rng.randrange(len(part))]
            case 4:
                text[at:at] = rng.choice(
                    [b"NaN", b"1e9", b"null", b'"name":"z",', b"\xc3\xa9", b" "]
                )
    return bytes(text)


def test_hostile_configurations_scan_as_python_reads_them(driver: Path) -> None:
    assert assert_agreement(driver, FIXED + SEEDS) > len(SEEDS)


@pytest.mark.matrix(id="T32 launcher scanner", full=100_000, reduced=3_000)
def test_mutated_configurations_scan_as_python_reads_them(driver: Path, count: int) -> None:
    rng = random.Random(1)
    accepted = assert_agreement(driver, [mutated(rng) for _ in range(count)])
    assert accepted > count // 50  # the mutations leave enough of them whole to compare values


@pytest.mark.parametrize("length", [1, 20, 42, 43, 44, 50, 51, 52, 107, 108, 500])
def test_derived_names_equal_those_of_the_model(driver: Path, length: int) -> None:
    # lengths around the places where SHA-256's padding takes one block more
    key = AttachmentKey("weft", "c" * length, "eth0")
    done = subprocess.run(
        [driver, key.network, key.container, key.ifname], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [key.digest.hex(), key.host_link]
