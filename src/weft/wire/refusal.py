"""The answer to a frame of another version of the local protocol.

Its header tells what it carries, and that is all that is believed of it. Apart from `local`,
because the error of a CNI call is CNI's to encode.
"""

from __future__ import annotations

from weft.wire.cni import encode_error
from weft.wire.local import (
    ApiError,
    CniAnswer,
    Kind,
    OtherVersion,
    encode_api,
    encode_cni_answer,
)


def refusal(error: OtherVersion) -> bytes:
    """The frame that says so, in this side's version: the caller's newer one is not known here."""
    if error.kind == Kind.CNI_REQUEST:
        return encode_cni_answer(CniAnswer(status=1, stdout=encode_error(error)))
    return encode_api(ApiError(reason=error.reason, message=error.message))
