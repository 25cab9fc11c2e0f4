"""Whether the kernel can limit rates: tried once, on a thread of its own, or told by the kernel."""

from __future__ import annotations

import asyncio
import threading

import pytest

from weft.agent import limiting
from weft.agent.limiting import Limiting
from weft.model.errors import Unsupported


def test_a_trial_that_succeeds_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def trial() -> str:
        threads.append(threading.get_ident())
        return ""

    monkeypatch.setattr(limiting, "trial", trial)

    async def twice() -> str:
        subject = Limiting()
        await asyncio.gather(subject.require(), subject.require())
        await subject.require()
        assert subject.proven
        return await subject.why()

    assert asyncio.run(twice()) == ""
    assert len(threads) == 1 and threads[0] != threading.get_ident()


def test_a_refusal_names_what_is_missing_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = ["the kernel refused to set Ifb: EOPNOTSUPP", ""]
    monkeypatch.setattr(limiting, "trial", lambda: answers.pop(0))

    async def again() -> None:
        subject = Limiting()
        with pytest.raises(Unsupported, match=r"EOPNOTSUPP.*CONFIG_IFB") as refused:
            await subject.require()
        assert refused.value.reason == "no-bandwidth"
        assert "EOPNOTSUPP" in await subject.why()
        await subject.require()
        assert await subject.why() == ""

    asyncio.run(again())


def test_a_trial_without_an_end_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(limiting, "trial", lambda: str(gate.wait(5.0)))
    monkeypatch.setattr(limiting, "TRIAL", 0.01)
    try:
        with pytest.raises(Unsupported, match="did not answer"):
            asyncio.run(Limiting().require())
    finally:
        gate.set()


def test_before_a_trial_the_kernel_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/kallsyms": "0 T tbf_init\n0 T clsact_init\n0 T u32_classify\n"}
    monkeypatch.setattr(limiting, "_text", lambda path: texts.get(path, ""))
    said = asyncio.run(Limiting().why())
    assert "ifb" in said and "mirred" in said and "tbf" not in said
    texts["/proc/kallsyms"] += "0 T ifb_xmit\n0 T tcf_mirred_act\n"
    assert asyncio.run(Limiting().why()) == ""
    texts.clear()
    assert asyncio.run(Limiting().why()) == "", "unknown is not missing"
