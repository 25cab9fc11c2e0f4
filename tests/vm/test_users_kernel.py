"""The main job, the guards and a round of faults on the kernel that Debian 12's users have: 6.1.

The tests are those of tests/e2e and tests/kernel, run again inside a guest (see `guest`). The
everyday run takes few of them; `./dev test full` takes the whole list, which needs about ten
minutes of a processor that has nothing else to do. docs/kernels.md says what is not in it, and why.
"""

from __future__ import annotations

import os

import guest
import pytest

UP = "tests/e2e/test_dev_up.py"
ATTACHMENT = "tests/e2e/test_agent_attachment.py"
SURVIVAL = "tests/e2e/test_agent_survival.py"
GUARDS = "tests/kernel/test_guards.py"

QUICK = (
    f"{UP}::test_network_goes_on_after_up_and_is_given_back_whole_by_down",
    f"{SURVIVAL}::test_traffic_goes_on_while_there_is_no_agent",
    f"{SURVIVAL}::test_damage_to_unprotected_rules_is_repaired",
)
WHOLE = (
    *QUICK,
    f"{UP}::test_up_shows_two_containers_reaching_each_other_and_the_outside",
    # the rules, and what passes them
    "tests/kernel/test_boot_closed.py",
    "tests/kernel/test_engine_rules.py",
    "tests/kernel/test_rules.py",
    "tests/kernel/test_rules_traffic.py",
    f"{GUARDS}::test_nothing_forbidden_passes_and_each_is_counted_under_its_reason",
    f"{GUARDS}::test_random_frames_reach_nobody",
    f"{GUARDS}::test_sender_that_starts_before_the_link_is_up_gets_nothing_through",
    f"{GUARDS}::test_what_comes_from_a_renamed_link_is_dropped_also_without_an_agent",
    # what an attachment is
    f"{ATTACHMENT}::test_both_families_are_there_when_add_answers",
    f"{ATTACHMENT}::test_the_promised_sysctls_hold_on_both_sides",
    f"{ATTACHMENT}::test_outside_a_pod_has_the_nodes_address_or_its_own",
    f"{ATTACHMENT}::test_pods_see_each_other_under_their_own_addresses",
    f"{ATTACHMENT}::test_an_add_whose_guards_cannot_be_set_fails_and_leaves_nothing",
    f"{ATTACHMENT}::test_no_add_succeeds_without_its_packet_rules",
    # systemd as process 1 of namespaces of its own, with our units
    "tests/e2e/test_systemd.py",
    # a round of faults
    f"{SURVIVAL}::test_without_its_journal_the_agent_knows_its_attachments_again",
    f"{SURVIVAL}::test_a_journal_of_rubbish_is_as_good_as_none",
    f"{SURVIVAL}::test_an_agent_killed_at_random_moments_loses_and_leaves_nothing",
    f"{SURVIVAL}::test_after_a_kill_everything_an_add_had_answered_stands",
    f"{SURVIVAL}::test_an_add_whose_launcher_was_killed_is_undone",
    f"{SURVIVAL}::test_damage_on_the_host_is_repaired",
    f"{SURVIVAL}::test_damage_inside_a_pod_is_named_by_check_and_left_alone",
)
FULL = os.environ.get("WEFT_COUNTS") == "full"
LIMIT = 2400.0 if FULL else 900.0  # seconds, also beside a load of ten a processor

pytestmark = pytest.mark.skipif(
    bool(guest.missing()), reason=f"not run: {guest.missing()} (./dev test vm provides it)"
)


def begin() -> guest.Guest:
    """One boot for all of this file; conftest decides when."""
    return guest.Guest(WHOLE if FULL else QUICK, limit=LIMIT, counts="reduced")


@pytest.fixture(scope="module")
def ran(begun_guest: guest.Guest) -> guest.Run:
    return begun_guest.end()


def test_the_guest_has_another_kernel(ran: guest.Run) -> None:
    assert ran.release != os.uname().release
    assert ran.release.startswith("6.1.")


@pytest.mark.parametrize("name", QUICK)
def test_holds_on_the_users_kernel(ran: guest.Run, name: str) -> None:
    chosen = [each for each in ran.verdicts if name in (each.name, each.name.partition("[")[0])]
    assert chosen, f"it did not run:\n{ran.output[-3000:]}"
    for verdict in chosen:
        assert verdict.outcome == "passed", f"{verdict.name}: {verdict.words}"


@pytest.mark.matrix(id="6.1 kernel", full=82, reduced=len(QUICK))
def test_nothing_fails_on_the_users_kernel(ran: guest.Run, count: int) -> None:
    bad = [f"{each.name}: {each.words}" for each in ran.verdicts if each.outcome != "passed"]
    assert not bad, f"{len(bad)} of {len(ran.verdicts)}:\n" + "\n".join(bad)[:20_000]
    assert len(ran.verdicts) >= count, ran.output[-3000:]
