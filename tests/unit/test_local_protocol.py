"""The local protocol: what is encoded is decoded, torn and foreign bytes are refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.model.errors import PeerFault
from weft.wire import local
from weft.wire.local import (
    ApiAnswer,
    ApiError,
    ApiRequest,
    CniAnswer,
    CniRequest,
    Frame,
    Frames,
    Kind,
)

PROTOCOL_H = Path(__file__).parents[2] / "native" / "launcher" / "protocol.h"

few = settings(max_examples=25, deadline=None)

names = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
requests = st.builds(
    CniRequest,
    program=values,
    environment=st.lists(st.tuples(names, values), max_size=6).map(tuple),
    stdin=st.binary(max_size=200),
    netns_errno=st.integers(-1, 133),
    flags=st.integers(0, 3),
    protocol=st.integers(1, 9),
    started_ns=st.integers(0, 2**63),
)
frames = st.builds(Frame, kind=st.integers(0, 9), payload=st.binary(max_size=64))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def only_frame(data: bytes) -> Frame:
    cutter = Frames()
    (frame,) = cutter.feed(data)
    cutter.finish()
    return frame


@few
@given(requests)
def test_a_cni_request_survives_the_wire(request: CniRequest) -> None:
    frame = only_frame(local.encode_cni_request(request))
    assert frame.kind == Kind.CNI_REQUEST
    assert local.decode_cni_request(frame.payload) == request


@few
@given(st.integers(0, 1), st.binary(min_size=1))
def test_a_cni_answer_survives_the_wire(status: int, stdout: bytes) -> None:
    answer = CniAnswer(status=status, stdout=stdout)
    frame = only_frame(local.encode_cni_answer(answer))
    assert local.decode_cni_answer(frame.payload) == answer


@few
@given(st.text(), st.dictionaries(st.text(), json_values, max_size=3))
def test_an_api_call_survives_the_wire(method: str, params: dict[str, Any]) -> None:
    call = ApiRequest(method=method, params=params)
    frame = only_frame(local.encode_api(call))
    assert (frame.kind, local.decode_api_request(frame.payload)) == (Kind.API_REQUEST, call)
    answer = ApiAnswer(result=params)
    for encode, kind in (
        (local.encode_api, Kind.API_ANSWER),
        (local.encode_api_item, Kind.API_ITEM),
    ):
        frame = only_frame(encode(answer))
        assert (frame.kind, local.decode_api_answer(frame.payload)) == (kind, answer)


def test_an_api_error_survives_the_wire() -> None:
    error = ApiError(reason="not-found", message="no such pool", field="spec.cidr")
    frame = only_frame(local.encode_api(error))
    assert (frame.kind, local.decode_api_error(frame.payload)) == (Kind.API_ERROR, error)


@few
@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_frames_are_the_same_however_the_stream_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(local.encode_frame(frame.kind, frame.payload) for frame in sent)
    cutter = Frames()
    received: list[Frame] = []
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for begin, end in itertools.pairwise(places):
        received += cutter.feed(stream[begin:end])
    cutter.finish()
    assert received == sent
    assert cutter.is_between_frames


@few
@given(requests, st.data())
def test_a_torn_cni_request_is_refused_or_lacks_only_additions(
    request: CniRequest, data: st.DataObject
) -> None:
    payload = only_frame(local.encode_cni_request(request)).payload
    cut = data.draw(st.integers(0, len(payload) - 1))
    if cut < len(payload) - 8:
        with pytest.raises(PeerFault):
            local.decode_cni_request(payload[:cut])
    else:
        assert local.decode_cni_request(payload[:cut]).started_ns == 0


@few
@given(requests, st.binary())
def test_additions_of_a_newer_launcher_are_ignored(request: CniRequest, more: bytes) -> None:
    payload = only_frame(local.encode_cni_request(request)).payload
    assert local.decode_cni_request(payload + more) == request


@few
@given(st.binary(min_size=1), st.binary())
def test_additions_to_an_answer_are_ignored(stdout: bytes, more: bytes) -> None:
    payload = only_frame(local.encode_cni_answer(CniAnswer(status=1, stdout=stdout))).payload
    assert local.decode_cni_answer(payload + more).stdout == stdout
    with pytest.raises(PeerFault):
        local.decode_cni_answer(payload[:-1])


def test_members_that_a_newer_cli_adds_are_ignored() -> None:
    call = local.decode_api_request(b'{"method":"status","params":{},"since":3}')
    assert call == ApiRequest(method="status")


@few
@given(st.binary(max_size=80))
def test_any_bytes_give_frames_or_a_peer_fault(data: bytes) -> None:
    try:
        got = Frames(limit=64).feed(data)
    except PeerFault:
        return
    assert all(len(frame.payload) <= 64 for frame in got)


@few
@given(st.binary(max_size=120))
def test_any_payload_gives_a_value_or_a_peer_fault(payload: bytes) -> None:
    for decode in (
        local.decode_cni_request,
        local.decode_cni_answer,
        local.decode_api_request,
        local.decode_api_answer,
        local.decode_api_error,
    ):
        try:
            decode(payload)
        except PeerFault as fault:
            assert "local protocol" in fault.message


def test_a_foreign_peer_is_refused_at_its_first_octet() -> None:
    with pytest.raises(PeerFault, match="magic"):
        Frames().feed(b"G")


def test_a_frame_beyond_the_bound_is_refused_by_its_header_alone() -> None:
    header = local.encode_frame(1, b"")[:8] + (local.MAX_REQUEST + 1).to_bytes(4, "little")
    with pytest.raises(PeerFault, match="larger than the bound"):
        Frames().feed(header)


def test_an_unknown_version_is_refused_with_both_versions_named() -> None:
    with pytest.raises(PeerFault, match=r"version 7 .* 1 to 1"):
        Frames().feed(local.encode_frame(1, b"", version=7))


def test_a_connection_that_ends_inside_a_frame_is_a_peer_fault() -> None:
    cutter = Frames()
    assert cutter.feed(local.encode_frame(1, b"abc")[:-1]) == []
    with pytest.raises(PeerFault, match="ended"):
        cutter.finish()


def test_api_payloads_that_are_no_json_of_the_shape_are_refused() -> None:
    for payload in (b"", b"[]", b"{}", b'{"method":3}', b"[" * 100_000, b"\xff"):
        with pytest.raises(PeerFault):
            local.decode_api_request(payload)


def test_the_first_of_several_variables_counts() -> None:
    request = CniRequest(program="weft", environment=(("CNI_A", "1"), ("CNI_A", "2")), stdin=b"")
    assert request.variables() == {"CNI_A": "1"}


def test_variables_that_are_no_utf8_survive_as_surrogates() -> None:
    request = CniRequest(program="weft", environment=(("CNI_A", "\udcff"),), stdin=b"")
    payload = only_frame(local.encode_cni_request(request)).payload
    assert b"CNI_A=\xff\0" in payload
    assert local.decode_cni_request(payload) == request


def test_a_failure_without_its_error_object_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="error object"):
        local.encode_cni_answer(CniAnswer(status=1, stdout=b""))


def test_launcher_and_agent_agree_on_constants() -> None:
    text = PROTOCOL_H.read_text()
    defined = dict(re.findall(r"^#define (\w+) \(?([^()\n]+)\)?$", text, re.MULTILINE))

    def value(name: str) -> int:
        product = 1
        for factor in defined[name].split("*"):
            product *= int(factor)
        return product

    assert defined["FRAME_MAGIC"] == f'"{local.MAGIC.decode()}"'
    assert value("FRAME_HEADER") == len(local.encode_frame(1, b""))
    for name, own in (
        ("FRAME_VERSION", local.VERSION),
        ("KIND_CNI_REQUEST", Kind.CNI_REQUEST),
        ("KIND_CNI_ANSWER", Kind.CNI_ANSWER),
        ("LAUNCHER_PROTOCOL", local.LAUNCHER_PROTOCOL),
        ("FLAG_QUEUED", local.FLAG_QUEUED),
        ("NETNS_PASSED", local.NETNS_PASSED),
        ("NETNS_NONE", local.NETNS_NONE),
        ("MAX_STDIN", local.MAX_STDIN),
        ("MAX_ENVIRONMENT", local.MAX_ENVIRONMENT),
        ("MAX_PAYLOAD", local.MAX_REQUEST),
    ):
        assert value(name) == own, name
