"""What a runtime says in environment variables, and how it is told what is wrong with them."""

from __future__ import annotations

import pytest

from weft.model.errors import Invalid
from weft.model.reasons import cni_code
from weft.wire.cni import parse_request

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}
CONF = b'{"cniVersion":"1.1.0","name":"net","type":"weft"}'
DEL = {**ADD, "CNI_COMMAND": "DEL"}


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key not in names}


def refusal(env: dict[str, str], stdin: bytes = CONF) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse_request(env, stdin)
    return caught.value


def test_all_missing_variables_are_reported_together() -> None:
    error = refusal({"CNI_COMMAND": "ADD"})
    assert error.message == (
        "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
    )
    assert cni_code(error.reason) == 4


def test_an_empty_variable_is_a_missing_one() -> None:
    assert refusal({**ADD, "CNI_NETNS": ""}).message == (
        "required env variables [CNI_NETNS] missing"
    )


def test_a_missing_command_is_reported() -> None:
    assert refusal({}).message == "required env variables [CNI_COMMAND] missing"


@pytest.mark.parametrize("command", ["add", "UPDATE", "ADD "])
def test_an_unknown_command_is_named(command: str) -> None:
    error = refusal({**ADD, "CNI_COMMAND": command})
    assert error.message == f"unknown CNI_COMMAND: {command}"
    assert error.reason == "invalid-environment"


def test_a_hostile_command_is_shown_escaped_and_short() -> None:
    shown = refusal({"CNI_COMMAND": "\x1b[2J" + "A" * 5000}).message
    assert shown.isprintable()
    assert len(shown) < 200


def test_delete_needs_no_namespace() -> None:
    assert parse_request(without(DEL, "CNI_NETNS"), CONF).netns is None
    assert parse_request({**DEL, "CNI_NETNS": ""}, CONF).netns is None


def test_delete_goes_on_with_a_namespace_path_that_cannot_be_one() -> None:
    assert parse_request({**DEL, "CNI_NETNS": "not/absolute"}, CONF).netns is None


@pytest.mark.parametrize("path", ["relative", "./x", "/with\0nul", "/" + "x" * 5000, "/\udcff"])
def test_add_refuses_a_namespace_path_that_cannot_be_one(path: str) -> None:
    error = refusal({**ADD, "CNI_NETNS": path})
    assert (error.field, cni_code(error.reason)) == ("CNI_NETNS", 4)


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_verbs_without_attachment_need_only_the_command(command: str) -> None:
    stdin = b'{"cniVersion":"1.1.0","name":"net","cni.dev/valid-attachments":[]}'
    request = parse_request({"CNI_COMMAND": command}, stdin)
    assert (request.command, request.container_id, request.ifname) == (command, "", "")


def test_the_search_path_is_optional_everywhere() -> None:
    assert parse_request(ADD, CONF).path == ""
    assert parse_request({**ADD, "CNI_PATH": ":relative::/opt/cni/bin" * 900}, CONF).container_id


def test_the_old_name_of_the_container_id_counts_where_the_new_one_is_absent() -> None:
    env = without(ADD, "CNI_CONTAINERID")
    assert parse_request({**env, "CNI_PODID": "pod-1"}, CONF).container_id == "pod-1"
    assert parse_request({**ADD, "CNI_PODID": "pod-1"}, CONF).container_id == "c1"


BAD_IDS = {
    "dot": ".",
    "dots": "..",
    "option": "-rf",
    "path": "a/../b",
    "newline": "abc\n",
    "nul": "a\0b",
    "arabic digits": "a\u0661",
    "right to left": "a\u202eb",
    "combining": "a\u0301",
    "blank": "a b",
    "not utf-8": "a\udcff",
    "colon": "a:b",
}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("value", BAD_IDS.values(), ids=list(BAD_IDS))
def test_a_container_id_outside_its_alphabet_is_refused(command: str, value: str) -> None:
    error = refusal({**ADD, "CNI_COMMAND": command, "CNI_CONTAINERID": value})
    assert (error.field, cni_code(error.reason)) == ("CNI_CONTAINERID", 4)
    assert "CNI_CONTAINERID" in error.message
    assert error.message.isprintable()


def test_an_id_too_long_for_a_links_alias_is_refused_by_add_and_unknown_to_delete() -> None:
    assert refusal({**ADD, "CNI_CONTAINERID": "a" * 4096}).field == "CNI_CONTAINERID"
    assert parse_request({**DEL, "CNI_CONTAINERID": "a" * 4096}, CONF).container_id == "a" * 4096


def test_ids_of_real_runtimes_fit() -> None:
    for container_id in ("f" * 64, "cnitool-" + "0" * 20, "default-my.container_1"):
        assert parse_request({**ADD, "CNI_CONTAINERID": container_id}, CONF).container_id


BAD_IFNAMES = ["lo", "all", "default", "eth0%d", "../x", "a:b", "a\tb", "a b", ".", "..", "a" * 16,
               "é" * 8, "a\n", "a\0", "a\u202eb", "a\u00a0b", "a\x7f", "a\udcff"]  # fmt: skip


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("name", BAD_IFNAMES, ids=ascii)
def test_an_interface_name_that_none_may_have_is_refused(command: str, name: str) -> None:
    error = refusal({**ADD, "CNI_COMMAND": command, "CNI_IFNAME": name})
    assert (error.field, cni_code(error.reason)) == ("CNI_IFNAME", 4)
    assert "CNI_IFNAME" in error.message


@pytest.mark.parametrize("name", ["a", "a" * 15, "eth0.1", "é" * 7, "-x", "default0", "loop"])
def test_every_name_the_kernel_takes_otherwise_is_allowed(name: str) -> None:
    assert parse_request({**ADD, "CNI_IFNAME": name}, CONF).ifname == name


@pytest.mark.parametrize(
    "text", [";;=", "A", "IP=b=c", "=b", "IgnoreUnknown=1;", ";", "IgnoreUnknown=1;K8S_POD_NAME"]
)
def test_an_argument_that_is_no_pair_is_refused(text: str) -> None:
    error = refusal({**ADD, "CNI_ARGS": text})
    assert error.message.startswith("CNI_ARGS: invalid pair")
    assert cni_code(error.reason) == 4


def test_an_unknown_argument_is_refused_unless_it_is_to_be_ignored() -> None:
    error = refusal({**ADD, "CNI_ARGS": "FOO=1;IP=10.0.0.1"})
    assert "'FOO'" in error.message
    assert cni_code(error.reason) == 4
    for yes in ("1", "true", "TRUE", "True"):
        request = parse_request({**ADD, "CNI_ARGS": f"FOO=1;IgnoreUnknown={yes}"}, CONF)
        assert dict(request.args)["FOO"] == "1"
    for no in ("0", "false"):
        assert "'FOO'" in refusal({**ADD, "CNI_ARGS": f"FOO=1;IgnoreUnknown={no}"}).message


def test_an_argument_of_others_may_hold_what_ours_may_not() -> None:
    text = "NOMAD_JOB_ID=a=b=;IgnoreUnknown=true"
    assert dict(parse_request({**ADD, "CNI_ARGS": text}, CONF).args)["NOMAD_JOB_ID"] == "a=b="
    assert "'NOMAD_JOB_ID'" in refusal({**ADD, "CNI_ARGS": "NOMAD_JOB_ID=a=b="}).message


def test_ignore_unknown_takes_booleans_only() -> None:
    assert "IgnoreUnknown" in refusal({**ADD, "CNI_ARGS": "IgnoreUnknown=maybe"}).message


def test_the_last_of_repeated_arguments_counts() -> None:
    request = parse_request({**ADD, "CNI_ARGS": "IP=10.0.0.1;IP=10.0.0.2"}, CONF)
    assert [str(ip) for ip in request.wishes.ips] == ["10.0.0.2"]


def test_delete_is_not_held_up_by_arguments() -> None:
    request = parse_request({**DEL, "CNI_ARGS": ";;=;FOO=1;IP=nonsense;IgnoreUnknown=maybe"}, CONF)
    assert dict(request.args)["FOO"] == "1"
    assert request.wishes.ips == ()
