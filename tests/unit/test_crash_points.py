"""Which system calls a crash sweep strikes, how it names them, and what it tells strace."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_run import run

from weft.lab.crash import report
from weft.lab.crash.effects import can_fail, is_effect
from weft.lab.crash.faults import Fault, faults
from weft.lab.crash.plan import Report, Result, Trial
from weft.lab.crash.player import Played
from weft.lab.crash.sweep import others
from weft.lab.crash.tracing import Injection, Point, read, spelled, struck
from weft.model.errors import Invalid

LOG = """\
70 openat(AT_FDCWD</>, "/proc/sys/net/ipv4/conf", O_RDONLY|O_CLOEXEC) = 9</proc/sys>
70 write(9</a>, "1", 1)                  = 1
71 sendto(5<NETLINK:[ROUTE:1]>, [{x}], 32, 0, NULL, 0 <unfinished ...>
70 write(9</a>, "2 = (3) = 4", 1)        = -1 EIO (Input/output error) (INJECTED)
71 <... sendto resumed>)                 = 32
71 sendto(5<NETLINK:[ROUTE:1]>, [{y}], 32, 0, NULL, 0) = ?
70 +++ killed by SIGKILL +++
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text(LOG)
    return path


def test_calls_are_numbered_by_name_and_thread(log: Path) -> None:
    assert [each.spelled for each in read(log, 70)] == [
        "main:openat:1",
        "main:write:1",
        "worker:sendto:1",
        "main:write:2",
        "worker:sendto:2",
    ]
    assert [each.words for each in read(log, 70)][-3:] == [
        "5<NETLINK:[ROUTE:1]>, [{x}], 32, 0, NULL, 0",
        '9</a>, "2 = (3) = 4", 1',
        "5<NETLINK:[ROUTE:1]>, [{y}], 32, 0, NULL, 0",
    ]


def test_the_struck_call_is_the_injected_one_or_the_last_before_a_kill(log: Path) -> None:
    assert struck(log) == 'write(9</a>, "2 = (3) = 4", 1)'
    log.write_text(LOG.replace(" (INJECTED)", ""))
    assert struck(log).startswith("sendto(5<NETLINK:[ROUTE:1]>, [{y}]")
    log.write_text("write(1</a>, 1) = 1\n")
    assert not struck(log)
    assert not struck(log.with_name("absent"))


def test_a_point_is_found_again_by_its_name() -> None:
    point = Point("worker", "sendto", 12, "whatever")
    assert spelled(point.spelled) == Point("worker", "sendto", 12)
    for wrong in ("", "main:sendto", "main:sendto:0", "other:sendto:1", "main:send to:1"):
        with pytest.raises(Invalid, match="points"):
            spelled(wrong)


def test_opening_a_file_is_an_effect_only_if_it_may_make_it() -> None:
    assert not is_effect("openat", 'AT_FDCWD, "/run/x", O_RDONLY|O_CLOEXEC')
    assert is_effect("openat", 'AT_FDCWD, "/run/x", O_WRONLY|O_CREAT|O_EXCL, 0600')
    assert can_fail("openat")
    assert is_effect("sendto", "") and not is_effect("recvfrom", "") and can_fail("recvfrom")


@pytest.mark.parametrize(
    ("kinds", "effect"),
    [
        (["0x12"], False),  # RTM_GETLINK
        (["0x10"], True),  # RTM_NEWLINK, or the begin of a batch
        (["0x11"], True),  # RTM_DELLINK
        (["0xa0d", "0xa0d"], False),  # NFT_MSG_GETSETELEM
        (["0x10", "0xa0e", "0x11"], True),
        (["0xa0d", "0xa0e"], True),
        (["RTM_GETROUTE"], False),
        (["RTM_NEWROUTE"], True),
        ([], True),
    ],
)
def test_a_question_to_the_kernel_is_no_effect(kinds: list[str], effect: bool) -> None:
    words = "5<NETLINK:[7]>, [" + ", ".join(
        f"{{nlmsg_len=40, nlmsg_type={k} /* ? */" for k in kinds
    )
    assert is_effect("sendto", words) is effect
    assert can_fail("sendto")
    assert is_effect("sendto", words.replace("NETLINK", "UNIX"))


@pytest.mark.parametrize(
    ("word", "injection"),
    [
        ("kill", "inject=write:signal=SIGKILL:when=3"),
        ("EIO", "inject=write:error=EIO:when=3"),
        ("EIO+", "inject=write:error=EIO:when=3+"),
        ("EINTR+", "inject=write:error=EINTR:when=3..5"),
    ],
)
def test_a_fault_tells_strace_when(word: str, injection: str) -> None:
    assert Fault(word).injection("write", 3) == Injection("write", injection)


def test_faults_by_their_words() -> None:
    assert [each.word for each in faults(["kill", "EIO", "kill"])] == ["kill", "EIO"]
    assert len(faults(["errno"])) == 12
    with pytest.raises(Invalid, match="--fault EPERM") as refused:
        faults(["EPERM"])
    assert refused.value.field == "fault"
    assert not Fault("EMFILE+").strikes("accept4") and Fault("EMFILE").strikes("accept4")


def test_a_failure_is_reported_with_the_command_that_repeats_it() -> None:
    trial = Trial(
        verb="ADD",
        victim="agent",
        fault=Fault("ENOSPC+"),
        point=Point("main", "pwrite64", 3),
        then="gc",
    )
    command = (
        "weft lab crash-sweep --verb ADD --victim agent --fault ENOSPC+ --then gc "
        "--points main:pwrite64:3"
    )
    assert trial.command == command
    found = Report(
        results=(
            Result(trial=trial, where="pwrite64(9)", left=("+ links: wfx",)),
            Result(trial=trial, where="", left=()),
            Result(trial=trial, where="pwrite64(9)", retried=True),
            Result(trial=trial, where="pwrite64(9)"),
        ),
        seed=7,
        datagrams=100,
    )
    (counted,) = report.rows(found).values()
    assert counted == {"points": 1, "failed": 1, "missed": 1, "retried": 1, "passed": 1}
    assert command in report.as_json(found) and '"seed": 7' in report.as_json(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--verb", "VERSION"], "--verb VERSION: must be one of ADD, DEL"),
        (["--victim", "me"], "--victim me: must be one of launcher, agent"),
        (["--then", "pray"], "--then pray: must be one of del, add"),
        (["--fault", "EPERM"], "--fault EPERM: must be one of kill"),
        (["--points", "0"], "--points 0: must be all"),
        (["--sample", "x"], "--sample x: must be a number of trials"),
        (["-o", "xml"], "-o xml: must be table or json"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    told = run("lab", "crash-sweep", *arguments)
    assert told.status == 1
    assert words in told.err


def test_without_strace_the_sweep_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "apt-get install strace" in run("lab", "crash-sweep").err


def _trial(verb: str, number: int, fault: str = "kill") -> Trial:
    point = Point("main", "write", number)
    return Trial(verb=verb, victim="agent", fault=Fault(fault), point=point, then="del")


def _outcome(trial: Trial, where: str) -> Played:
    return Played(Result(trial=trial, where=where), 0)


def test_a_missed_point_gives_way_to_another_of_the_same_verb_each_once() -> None:
    missed, met = _outcome(_trial("ADD", 1), ""), _outcome(_trial("ADD", 2), "write(1)")
    spare = [_trial("DEL", 3), _trial("ADD", 1), _trial("ADD", 4)]
    assert others({0: missed, 1: met}, spare) == {0: _trial("ADD", 4)}
    assert others({0: missed, 1: met}, spare) == {0: _trial("ADD", 1)}
    assert others({0: missed, 1: met}, spare) == {}
    assert spare == [_trial("DEL", 3)]
