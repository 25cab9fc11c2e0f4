"""The main job, the guards and a round of faults on the kernel that Debian 12's users have: 6.1.

The tests are those of tests/e2e and tests/kernel, run again inside a guest (see `guest`). The
everyday run takes few of them; `./dev test full` takes whole files.
"""

from __future__ import annotations

import os

import guest
import pytest

UP = "tests/e2e/test_dev_up.py"
ATTACHMENT = "tests/e2e/test_agent_attachment.py"
SURVIVAL = "tests/e2e/test_agent_survival.py"
TRAFFIC = "tests/kernel/test_rules_traffic.py"

QUICK = (
    f"{UP}::test_network_goes_on_after_up_and_is_given_back_whole_by_down",
    f"{SURVIVAL}::test_traffic_goes_on_while_there_is_no_agent",
    f"{SURVIVAL}::test_damage_to_unprotected_rules_is_repaired",
)
WHOLE = (
    f"{UP}::test_up_shows_two_containers_reaching_each_other_and_the_outside",
    UP + "::test_network_goes_on_after_up_and_is_given_back_whole_by_down",
    "tests/kernel/test_rules.py",
    TRAFFIC,
    "tests/kernel/test_boot_closed.py",
    "tests/kernel/test_guards.py",
    "tests/kernel/test_engine_rules.py",
    ATTACHMENT,
    SURVIVAL,
)
FULL = os.environ.get("WEFT_COUNTS") == "full"
LIMIT = 2400.0 if FULL else 300.0

pytestmark = pytest.mark.skipif(
    bool(guest.missing()), reason=f"not run: {guest.missing()} (./dev test vm provides it)"
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> guest.Run:
    """One boot for all of this file."""
    chosen = (*QUICK, *WHOLE) if FULL else QUICK
    return guest.run(chosen, tmp_path_factory.mktemp("guest"), limit=LIMIT, counts="reduced")


def test_the_guest_has_another_kernel(ran: guest.Run) -> None:
    assert ran.release != os.uname().release
    assert ran.release.startswith("6.1.")


@pytest.mark.parametrize("name", QUICK)
def test_holds_on_the_users_kernel(ran: guest.Run, name: str) -> None:
    chosen = [each for each in ran.verdicts if name in (each.name, each.name.partition("[")[0])]
    assert chosen, f"it did not run:\n{ran.output[-3000:]}"
    for verdict in chosen:
        assert verdict.outcome == "passed", f"{verdict.name}: {verdict.words}"


@pytest.mark.matrix(id="6.1 kernel", full=100, reduced=len(QUICK))
def test_nothing_fails_on_the_users_kernel(ran: guest.Run, count: int) -> None:
    bad = [f"{each.name}: {each.words}" for each in ran.verdicts if each.outcome != "passed"]
    assert not bad, f"{len(bad)} of {len(ran.verdicts)}:\n" + "\n".join(bad)[:20_000]
    assert len(ran.verdicts) >= count, ran.output[-3000:]
