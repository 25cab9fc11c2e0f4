"""Where something listens, as people write it."""

from __future__ import annotations

import pytest

from weft.model.errors import Invalid
from weft.model.listening import Listening, Tcp, Unix, read_listening


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("127.0.0.1:9464", Tcp(host="127.0.0.1", port=9464)),
        ("[::1]:9464", Tcp(host="::1", port=9464)),
        ("[2001:DB8::0:1]:1", Tcp(host="2001:db8::1", port=1)),
        ("0.0.0.0:0", Tcp(host="0.0.0.0", port=0)),
        ("unix:/run/weft/metrics.sock", Unix(path="/run/weft/metrics.sock")),
        ("off", None),
    ],
)
def test_what_people_write_is_understood_and_shown_the_same(
    text: str, means: Listening | None
) -> None:
    found = read_listening(text, "here")
    assert found == means
    if found is not None:
        assert read_listening(str(found), "here") == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "none of"),
        ("9464", "none of"),
        ("localhost:9464", "none of"),
        ("127.0.0.1:9464\n", "none of"),
        ("127.0.0.1:٩", "none of"),
        ("::1:9464", "none of"),
        ("127.0.0.1:65536", "0..65535"),
        ("127.0.0.256:1", "no"),
        ("[127.0.0.1]:1", "brackets"),
        ("[fe80::1%eth0]:1", "none of"),
        ("unix:metrics.sock", "absolute"),
        ("unix:/run/../etc/x", "absolute"),
        ("unix:/" + "s" * 103, "103"),
        ("OFF", "none of"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_listening(text, "metrics.listen")
    assert caught.value.field == "metrics.listen"
    assert "metrics.listen" in caught.value.message
    assert says in caught.value.message
