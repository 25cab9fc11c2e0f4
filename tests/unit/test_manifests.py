"""Manifests: what is read, and what hostile text cannot do."""

from __future__ import annotations

import time

import pytest

from weft.model.errors import Invalid
from weft.model.manifests import MAX_BYTES, read_manifests


def test_yaml_of_several_documents_skips_empty_ones() -> None:
    assert read_manifests("a: 1\n---\n---\n# nothing\n---\nb: [x, 2]\n") == [
        {"a": 1},
        {"b": ["x", 2]},
    ]


def test_json_and_the_items_of_a_list_are_read() -> None:
    text = '{"kind": "List", "items": [{"a": 1}, {"b": null}]}'
    assert read_manifests(text) == [{"a": 1}, {"b": None}]


def test_flow_style_yaml_is_not_mistaken_for_json() -> None:
    assert read_manifests("{a: 1, b: two}") == [{"a": 1, "b": "two"}]


def test_words_that_yaml_1_1_would_convert_stay_text() -> None:
    text = "a: yes\nb: off\nc: 2024-01-01\nd: 1:30\ne: 010\nf: 0o7\ng: =\n"
    assert read_manifests(text)[0] == {
        "a": "yes",
        "b": "off",
        "c": "2024-01-01",
        "d": "1:30",
        "e": "010",
        "f": "0o7",
        "g": "=",
    }


def test_plain_values_have_their_types() -> None:
    text = "a: true\nb: -7\nc: 1.5\nd: ~\ne: 0x1F\nf: 1e3\ng:\nh: '1'\n"
    assert read_manifests(text)[0] == {
        "a": True,
        "b": -7,
        "c": 1.5,
        "d": None,
        "e": 31,
        "f": 1000.0,
        "g": None,
        "h": "1",
    }


def test_a_modest_alias_is_allowed() -> None:
    assert read_manifests("a: &x [1, 2]\nb: *x\n") == [{"a": [1, 2], "b": [1, 2]}]


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


HOSTILE = {
    "too long": ("a: " + "x" * MAX_BYTES, "at most 1048576"),
    "too long in bytes": ("a: " + "\u00e9" * (MAX_BYTES // 2), "at most 1048576"),
    "not UTF-8": (b"a: \xff", "not UTF-8"),
    "alias bomb": (bomb(12, 9), "aliases"),
    "alias inside itself": ("a: &a [*a]", "inside itself"),
    "alias to nothing": ("a: *b", "unknown"),
    "deep flow YAML": ("a: " + "[" * 5000, "deeper"),
    "deep block YAML": ("\n".join(" " * depth + "a:" for depth in range(100)), "deeper"),
    "deep JSON": ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "deeper"),
    "a little too deep JSON": ('{"a":' + "[" * 70 + "]" * 70 + "}", "deeper"),
    "duplicate JSON key": ('{"a": 1, "a": 2}', "twice"),
    "duplicate YAML key": ("a: 1\nb: 2\na: 3", "line 3"),
    "NaN in JSON": ('{"a": NaN}', "NaN"),
    "infinity in JSON": ('{"a": 1e999}', "not a usable number"),
    "NaN in YAML": ("a: .nan", "not a usable number"),
    "infinity in YAML": ("a: -.inf", "not a usable number"),
    "huge number": ("a: 1" + "0" * 5000, "digits"),
    "object tag": ("a: !!python/object/apply:os.system ['true']", "constructor"),
    "merge key": ("a: &a {b: 1}\nc:\n  <<: *a", "merge"),
    "number as a key": ("1: x", "quote it"),
    "mapping as a key": ("? {a: 1}\n: x", "not text"),
    "list": ("[1, 2]", "mapping"),
    "text": ("hello", "mapping"),
    "items that are none": ('{"kind": "List", "items": 3}', "items"),
    "item that is no mapping": ('{"kind": "List", "items": [3]}', "items"),
    "syntax": ("a: [", "line"),
    "control character": ("a: \x07", "control characters"),
    "very many documents": ("---\na: 1\n" * 10_001, "at most 10000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_with_a_reason_and_soon(name: str) -> None:
    text, says = HOSTILE[name]
    started = time.perf_counter()
    with pytest.raises(Invalid) as caught:
        read_manifests(text, source="pool.yaml")
    assert says in caught.value.message
    assert caught.value.message.startswith("pool.yaml: ")
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()
    # about 1 s where it is slowest (10,001 documents); a bomb that went off would take forever
    assert time.perf_counter() - started < 20
