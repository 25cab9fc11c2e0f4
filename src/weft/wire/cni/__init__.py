"""CNI: requests, results and errors of every spec version, as bytes and values.

The door is `parse_request`, `encode_result` and `encode_error`; what they say stands in
docs/reference/cni.md. Read on in `request.py`. Pure: no file, socket or clock.
"""

from weft.wire.cni.config import Conf
from weft.wire.cni.errors import caller_version, encode_error
from weft.wire.cni.request import (
    Request,
    decode_result,
    encode_result,
    encode_version,
    parse_request,
)
from weft.wire.cni.result import Dns, Interface, Ip, Result, Route, Unreadable, merge
from weft.wire.cni.versions import NEWEST, SUPPORTED
from weft.wire.cni.versions.form import Command
from weft.wire.cni.wishes import Wishes

__all__ = [
    "NEWEST",
    "SUPPORTED",
    "Command",
    "Conf",
    "Dns",
    "Interface",
    "Ip",
    "Request",
    "Result",
    "Route",
    "Unreadable",
    "Wishes",
    "caller_version",
    "decode_result",
    "encode_error",
    "encode_result",
    "encode_version",
    "merge",
    "parse_request",
]
