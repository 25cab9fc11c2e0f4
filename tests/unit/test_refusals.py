"""What the system refuses is answered with a code and words that somebody can act on."""

import errno

import pytest

from weft.agent.refusals import told
from weft.kernel.netlink import Failure
from weft.model.errors import Exhausted, WeftError
from weft.wire.cni.errors import encode_error


def _refused(code: int, *notes: str) -> OSError:
    error = OSError(code, "as the kernel says")
    for note in notes:
        error.add_note(note)
    return error


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (_refused(errno.EIO), "system-call-failed", 5),
        (_refused(errno.EPERM), "system-call-failed", 5),
        (_refused(errno.EMFILE), "out-of-resources", 11),
        (_refused(errno.ENOBUFS), "out-of-resources", 11),
        (_refused(errno.ENOSPC), "out-of-resources", 11),
        (MemoryError(), "out-of-resources", 11),
        (Failure(3, errno.ENOMEM, ""), "out-of-resources", 11),
        (Failure(3, errno.EPERM, "not you"), "system-call-failed", 5),
        (KeyError("weft"), "internal", 999),
        (OSError("no errno at all"), "internal", 999),
        (TimeoutError("timed out"), "internal", 999),
    ],
)
def test_each_refusal_has_its_reason(error: Exception, reason: str, code: int) -> None:
    answer = told(error)
    assert (answer.reason, answer.__cause__) == (reason, error)
    assert b'"code":%d,' % code in encode_error(answer, "1.1.0")


def test_the_words_name_what_was_done_the_file_and_the_errno() -> None:
    error = OSError(errno.EROFS, "Read-only file system", "/run/weft/queue")
    error.add_note("looking into the queue")
    assert told(error).message == (
        "looking into the queue (/run/weft/queue): EROFS (Read-only file system)"
    )


def test_what_has_a_reason_keeps_it() -> None:
    error: WeftError = Exhausted("no address is left")
    assert told(error) is error
