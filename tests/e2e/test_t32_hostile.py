"""T32: hostile requests through the real launcher to the real agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from acceptance import SLACK, Answer, Ask, Host, ask, execute_all
from hostile import EARLY, POD, Codes, damaged, seeds
from weft.lab import calls

TIME_LIMIT = 0.2 * SLACK
MEMORY_LIMIT = 100  # MiB
SECRETS = (b"Traceback", b"most recent call last", b"SEGV", b"assert")


@contextmanager
def _staged(host: Host) -> Iterator[None]:
    host.make([POD])
    host.shell(
        "mkdir /run/hostile && cd /run/hostile && mkfifo fifo && touch file "
        "&& ln -s /proc/self/ns/net own"
    )
    yield
    host.shell("rm -r /run/hostile")
    host.unmake([POD])


def _wrong(said: Answer, codes: Codes) -> list[str]:
    found = []
    if said.status is None:
        return ["no answer"]
    if said.seconds > TIME_LIMIT:
        found.append(f"took {said.seconds:.2f} s")
    if not said.is_clean:
        found.append("standard output is not what it should be")
    if (None if said.status == 0 else said.code) not in codes:
        found.append(f"code {said.code}, not one of {codes}")
    if any(word in said.stdout + said.stderr for word in SECRETS):
        found.append("shows the program's inside")
    if any(octet < 0x20 and octet != 0x0A for octet in said.stdout):
        found.append("control characters in the answer")
    return [f"{problem}: {said.stdout[:200]!r}" for problem in found]


def _deletion(request: Ask) -> Ask:
    return msgspec.structs.replace(request, env={**request.env, "CNI_COMMAND": "DEL"})


def _sent(requests: list[Ask]) -> list[tuple[int | None, bytes, bytes, float]]:
    """Each request alone; an ADD that succeeds is deleted again. Runs inside the node."""
    answers = []
    for request in requests:
        (answer,) = execute_all([request], 1, 20.0)
        answers.append(answer)
        if answer[0] == 0 and request.env.get("CNI_COMMAND") == "ADD":
            execute_all([_deletion(request)], 1, 20.0)
    return answers


def _through(host: Host, requests: list[Ask]) -> list[Answer]:
    raw = calls.call(host.node, _sent, requests, timeout=60.0 + len(requests))
    return [Answer(status=a, stdout=b, stderr=c, seconds=d) for a, b, c, d in raw]


def test_every_known_troublemaker_gets_its_code_in_time(host: Host) -> None:
    with _staged(host):
        rows = list(seeds())
        before = host.snapshot()
        answers = _through(host, [request for _, request in rows])
        found = {
            f"seed {number} {request.env} {request.stdin[:60]!r}"[:400]: wrong
            for number, ((codes, request), said) in enumerate(zip(rows, answers, strict=True))
            if (wrong := _wrong(said, codes))
        }
        assert not found
        assert host.settled(before) == []
        assert host.memory < MEMORY_LIMIT


@pytest.mark.matrix(id="T32", full=5000, reduced=300)
def test_damaged_requests_are_answered_in_time_and_change_nothing(host: Host, count: int) -> None:
    with _staged(host):
        witness = host.add("witness", network="untouched").json
        before = host.snapshot()
        descriptors = host.descriptors
        outcomes: dict[int | None, int] = {}
        for first in range(0, count, 250):
            numbers = range(first, min(first + 250, count))
            answers = _through(host, [damaged(number) for number in numbers])
            found = {
                f"damage {number}": wrong
                for number, said in zip(numbers, answers, strict=True)
                if (wrong := _wrong(said, (*EARLY, 50)))
            }
            assert not found
            for said in answers:
                outcomes[said.code] = outcomes.get(said.code, 0) + 1
        assert {None, 1, 4, 6, 7} <= outcomes.keys(), f"the damage is too much alike: {outcomes}"
        assert host.settled(before) == []
        assert host.memory < MEMORY_LIMIT
        assert host.descriptors_left(descriptors) <= descriptors
        check = ask("CHECK", "witness", network="untouched", prevResult=witness)
        assert host.send(check).status == 0
        host.drop("witness", network="untouched")


def test_many_hostile_callers_at_once_do_not_keep_a_good_one_waiting(host: Host) -> None:
    with _staged(host):
        rows = [request for codes, request in seeds() if None not in codes]
        host.make(["good"])
        mixed = [*rows, ask("ADD", "good"), *rows]
        answers = host.storm(mixed, workers=16)
        assert answers[len(rows)].status == 0
        assert all(said.is_clean for said in answers)
        host.drop("good")
