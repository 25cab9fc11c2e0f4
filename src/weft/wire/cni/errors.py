"""A failure as the one JSON object that CNI wants on standard output.

`code` comes from the reason's line in `model.reasons`; `cniVersion` is always there, which the Go
libraries forget. Where a failure has no details of its own, the catalogue's advice stands there.
"""

from __future__ import annotations

import re

import msgspec

from weft.model.errors import WeftError
from weft.model.reasons import REASONS, cni_code
from weft.wire.cni.config import read_document, read_head
from weft.wire.cni.versions import NEWEST

_ECHOED = re.compile(r"[0-9A-Za-z.+-]{1,32}")

MAX_MESSAGE = 8 * 1024
"""Characters of `msg` and of `details`; the launcher's buffer holds both escaped."""


class _Error(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """SPEC section 5, "Error"."""

    cni_version: str
    code: int
    msg: str
    details: str = ""


def encode_error(error: BaseException, version: str | None = None) -> bytes:
    """The error object. `version`: the caller's (see `caller_version`), None if unknown.

    Of several failures in a group the first says code and message and the rest are details.
    Anything outside our own tree is internal (code 999).
    """
    first, *others = _leaves(error)
    if isinstance(first, WeftError):
        reason, message, details = first.reason, first.message, first.details
    else:
        reason, message, details = "internal", f"{type(first).__name__}: {first}", ""
    entry = REASONS.get(reason)
    if not details and entry is not None:
        details = f"{entry.action} (weft explain {reason})"
    parts = (details, *(str(other) for other in others), *getattr(error, "__notes__", ()))
    return msgspec.json.encode(
        _Error(
            cni_version=version or NEWEST,
            code=cni_code(reason),
            msg=_sayable(message),
            details=_sayable("; ".join(part for part in parts if part)),
        )
    )


def caller_version(stdin: bytes) -> str:
    """The version that an error answers in: the caller's where it can be read, else the newest.

    Never raises. What we do not speak is echoed all the same, so that the caller knows its own
    words, unless it could not be a version. The launcher does the same for its own errors.
    """
    try:
        # a name of another type must not hide the version
        document = {key: raw for key, raw in read_document(stdin).items() if key != "name"}
        given = read_head(document).cni_version
    except WeftError:
        return NEWEST
    return given if _ECHOED.fullmatch(given) else NEWEST


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


def _sayable(text: str) -> str:
    """Text that can be encoded whatever the environment held, within the bound."""
    shown = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."
    return shown.encode("utf-8", "backslashreplace").decode()
