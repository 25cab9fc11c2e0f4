"""get, describe, apply, delete, label: what a person sees."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path

import pytest
import yaml
from cli_run import Ran, fake, nobody, run
from fake_agent import Fake

from weft.cli.client import Client
from weft.wire.api import DeleteParams, LabelParams

__all__ = ["fake", "nobody"]

POOL = """apiVersion: weft.dev/v1alpha1
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.244.0.0/16}
"""
BAD = """apiVersion: weft.dev/v1alpha1
kind: IPPool
metadata: {name: bad}
spec: {cidr: 10.244.0.0/16, blocksize: 26}
"""
PODS = """apiVersion: weft.dev/v1alpha1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: weft.dev/v1alpha1
kind: Pod
metadata: {name: db, labels: {app: db}}
"""


@pytest.mark.usefixtures("fake")
def test_apply_says_what_became_of_each_object() -> None:
    assert run("apply", "-f", "-", stdin=POOL) == (0, "ippool/default created\n", "")
    assert run("apply", "-f", "-", stdin=POOL) == (0, "ippool/default unchanged\n", "")
    disabled = POOL.replace("/16}", "/16, disabled: true}")
    assert run("apply", "-f", "-", stdin=disabled).out == "ippool/default configured\n"


@pytest.mark.usefixtures("fake")
def test_bad_object_does_not_stop_the_others_but_fails_the_command() -> None:
    ran = run("apply", "-f", "-", stdin=f"{BAD}---\n{POOL}")
    assert ran.status == 1
    assert ran.out == "ippool/default created\n"
    assert ran.err == (
        "error: standard input: ippool/bad: spec.blocksize: unknown field; "
        "did you mean 'blockSize'?\n"
    )


@pytest.mark.usefixtures("fake")
def test_directory_is_applied_in_order_and_deep_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "20-pods.yaml").write_text(PODS)
    (tmp_path / "10-pool.yml").write_text(POOL)
    (tmp_path / "notes.txt").write_text("not a manifest")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "more.json").write_text(
        json.dumps(yaml.safe_load(POOL.replace("default", "more").replace("244", "245")))
    )
    ran = run("apply", "-f", str(tmp_path))
    assert ran.out.split("\n")[:-1] == [
        "ippool/default created",
        "pod/web created",
        "pod/db created",
    ]
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "broken.json: " in ran.err
    assert "ippool/more created" in run("apply", "-R", "-f", str(tmp_path)).out


@pytest.mark.usefixtures("fake")
def test_dry_run_creates_nothing() -> None:
    ran = run("apply", "--dry-run", "-f", "-", stdin=POOL)
    assert ran == (0, "ippool/default created (dry run)\n", "")
    assert run("get", "ippools") == (0, "", "No resources found.\n")


@pytest.mark.usefixtures("fake")
def test_missing_file_is_named() -> None:
    ran = run("apply", "-f", "/nowhere/pool.yaml")
    assert ran == (1, "", "error: /nowhere/pool.yaml: no such file or directory\n")


@pytest.mark.usefixtures("fake")
def test_input_beyond_the_bound_is_refused() -> None:
    ran = run("apply", "-f", "-", stdin="#" * (2 << 20))
    assert ran.status == 1
    assert "at most 1048576 are allowed" in ran.err


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("stdin", ["", "---\n---\n"])
def test_apply_of_nothing_is_wrong_usage(stdin: str) -> None:
    ran = run("apply", "-f", "-", stdin=stdin)
    assert (ran.status, ran.out) == (2, "")
    assert "no objects were given" in ran.err


@pytest.mark.usefixtures("fake")
def test_table_of_pools_is_aligned() -> None:
    run("apply", "-f", "-", stdin=POOL)
    run(
        "apply",
        "-f",
        "-",
        stdin=POOL.replace("default", "v6").replace("10.244.0.0/16", '"fd00::/48"'),
    )
    assert run("get", "ipp").out == (
        "NAME      CIDR            BLOCK SIZE   DISABLED   AGE\n"
        "default   10.244.0.0/16   26           false      0s\n"
        "v6        fd00::/48       122          false      0s\n"
    )


def test_table_of_attachments_is_aligned(fake: Fake) -> None:
    first = fake.attach("3f2a91ccd04477", pod="shop/web-0")
    second = fake.attach("b1", address="10.244.0.16")
    assert run("get", "attachments").out == (
        "NETWORK   CONTAINER      IFNAME   NAMESPACE/POD   ADDRESSES     LINK              "
        "STATE   AGE\n"
        "weft      3f2a91ccd044   eth0     shop/web-0      10.244.0.5    "
        f"{first.host_link}   ready   5m\n"
        "weft      b1             eth0     -               10.244.0.16   "
        f"{second.host_link}   ready   5m\n"
    )


def test_attachments_are_those_of_a_namespace_only_when_one_is_named(fake: Fake) -> None:
    fake.attach("c1", pod="shop/web")
    fake.attach("c2")
    assert run("get", "att").out.count("\n") == 3
    assert run("get", "att", "-n", "shop").out.count("\n") == 2


@pytest.mark.usefixtures("fake")
def test_pods_are_those_of_one_namespace_unless_all_are_wanted() -> None:
    run("apply", "-f", "-", stdin=PODS)
    assert run("get", "pods").out == (
        "NAME   ADDRESSES   NODE   AGE\ndb     -           -      0s\n"
    )
    assert run("get", "po", "-A").out == (
        "NAMESPACE   NAME   ADDRESSES   NODE   AGE\n"
        "default     db     -           -      0s\n"
        "shop        web    -           -      0s\n"
    )
    assert run("get", "pods", "-A", "-l", "app in (web,x)", "-o", "name").out == "pod/web\n"
    assert run("get", "pods", "-A", "-l", "app!=web", "-o", "name").out == "pod/db\n"
    assert run("get", "pods", "-n", "empty").err == "No resources found in empty namespace.\n"


@pytest.mark.usefixtures("fake")
def test_yaml_of_several_is_a_list_that_can_be_applied_again() -> None:
    run("apply", "-f", "-", stdin=PODS)
    text = run("get", "pods", "-A", "-o", "yaml").out
    listed = yaml.safe_load(text)
    assert (listed["apiVersion"], listed["kind"], len(listed["items"])) == ("v1", "List", 2)
    assert run("apply", "-f", "-", stdin=text).out == "pod/db unchanged\npod/web unchanged\n"


@pytest.mark.usefixtures("fake")
def test_one_object_by_name_is_printed_bare() -> None:
    run("apply", "-f", "-", stdin=POOL)
    for words in (("ippool", "default"), ("ippool/default",)):
        found = json.loads(run("get", *words, "-o", "json").out)
        assert (found["kind"], found["spec"]) == ("IPPool", {"cidr": "10.244.0.0/16"})
    assert yaml.safe_load(run("get", "ippool/default", "-o", "yaml").out) == found


@pytest.mark.usefixtures("fake")
def test_missing_name_is_said_and_the_others_are_shown() -> None:
    run("apply", "-f", "-", stdin=POOL)
    ran = run("get", "ippool", "default", "ghost")
    assert ran.status == 1
    assert "default   10.244.0.0/16" in ran.out
    assert "error: ippool 'ghost' not found\n" in ran.err


@pytest.mark.usefixtures("fake")
def test_several_kinds_give_several_tables() -> None:
    run("apply", "-f", "-", stdin=f"{POOL}---\n{PODS}")
    tables = run("get", "ippools,pods").out.split("\n\n")
    assert [each.split()[1] for each in tables] == ["CIDR", "ADDRESSES"]


@pytest.mark.usefixtures("fake")
def test_misspelt_kind_names_the_nearest() -> None:
    ran = run("get", "ipools")
    assert ran.status == 1
    assert ran.err == (
        "error: no kind is called 'ipools'; did you mean 'ippools'?\n"
        "hint: weft explain unknown-kind\n"
    )


def _watched(fake: Fake, *words: str) -> Ran:
    """The command, with a pod labelled and the agent stopped while it runs."""
    held: list[Ran] = []
    shown = io.StringIO()
    thread = threading.Thread(target=lambda: held.append(run(*words, out=shown)))
    before = len(fake.store._watchers._all)
    thread.start()
    end = time.monotonic() + 5
    while len(fake.store._watchers._all) == before and time.monotonic() < end:
        thread.join(0.01)
    Client(os.environ["WEFT_SOCKET"]).call(
        "label", LabelParams(kind="Pod", name="late-and-long", namespace="default", set={"a": "b"})
    )
    Client(os.environ["WEFT_SOCKET"]).call(
        "delete", DeleteParams(kind="Pod", name="db", namespace="default")
    )
    while "(deleted)" not in shown.getvalue() and time.monotonic() < end:
        thread.join(0.01)
    fake.stop_streams()
    thread.join(5)
    (ran,) = held
    return ran


def test_watch_shows_what_there_is_then_changes_and_says_when_the_agent_stops(fake: Fake) -> None:
    run("apply", "-f", "-", stdin=PODS)
    ran = _watched(fake, "get", "pods", "-w")
    assert ran == (
        1,
        "NAME   ADDRESSES   NODE   AGE\n"
        "db     -           -      0s\n"
        "late-and-long   -           -      0s\n"
        "db              -           -      - (deleted)\n",
        "The agent has stopped.\n",
    )


def test_text_of_others_cannot_command_the_terminal(fake: Fake) -> None:
    fake.log.event("warning", "Odd", "node", "\x1b[2Jgone\nsecond line")
    out = run("get", "events").out
    assert "\x1b" not in out
    assert out.count("\n") == 2
    assert "\\x1b[2Jgone\\x0asecond line" in out


def test_describe_shows_everything_and_the_events_about_it(fake: Fake) -> None:
    attachment = fake.attach("3f2a91", pod="shop/web-0")
    fake.log.event("warning", "LinkDown", attachment.host_link, "the link went down")
    fake.log.event("info", "Started", "node", "serving")
    out = run("describe", "attachment", "3f2a").out
    for part in ("10.244.0.5", "shop/web-0", attachment.mac.hex(":"), "the link went down"):
        assert part in out
    assert "serving" not in out
    run("apply", "-f", "-", stdin=POOL)
    out = run("describe", "ippool/default").out
    assert out.startswith("Name:         default\nKind:         IPPool\n")
    assert "  Cidr:  10.244.0.0/16\n" in out
    assert out.endswith("Events:  <none>\n")


@pytest.mark.usefixtures("fake")
def test_delete_by_name_and_by_file() -> None:
    run("apply", "-f", "-", stdin=f"{POOL}---\n{PODS}")
    assert run("delete", "pod", "web", "-n", "shop") == (0, 'pod "web" deleted\n', "")
    ran = run("delete", "-f", "-", stdin=PODS)
    assert ran.out == 'pod "db" deleted\n'
    assert ran.err == "error: standard input: pod/web: pod 'web' not found\n"
    assert ran.status == 1
    assert run("delete", "--ignore-not-found", "-f", "-", stdin=PODS) == (0, "", "")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "words", [("delete",), ("delete", "pods"), ("delete", "pod", "x", "-f", "y")]
)
def test_delete_of_nobody_knows_what_is_wrong_usage(words: tuple[str, ...]) -> None:
    assert run(*words).status == 2


def test_pool_in_use_is_not_deleted_unless_forced(fake: Fake) -> None:
    run("apply", "-f", "-", stdin=POOL)
    fake.uses("default", 2)
    ran = run("delete", "ippool", "default")
    assert ran.status == 1
    assert "2 of its addresses are in use" in ran.err
    assert run("delete", "ippool", "default", "--force").out == 'ippool "default" deleted\n'


@pytest.mark.usefixtures("fake")
def test_label_sets_keeps_overwrites_and_removes() -> None:
    assert run("label", "pod", "web", "app=web", "x=1") == (0, "pod/web labeled\n", "")
    assert run("label", "pod", "web", "app=web").out == "pod/web not labeled\n"
    refused = run("label", "pod", "web", "app=db")
    assert refused.status == 1
    assert "--overwrite" in refused.err
    assert run("label", "pod", "web", "app=db", "--overwrite").out == "pod/web labeled\n"
    assert run("label", "pod", "web", "x-").out == "pod/web unlabeled\n"
    found = json.loads(run("get", "pod/web", "-o", "json").out)
    assert found["metadata"]["labels"] == {"app": "db"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("word", ["app", "a b=c", "=x", "app=with space", "-"])
def test_label_of_a_wrong_form_is_refused_before_anything_happens(word: str) -> None:
    assert run("label", "pod", "web", word).status in (1, 2)
    assert run("get", "pods").err.startswith("No resources found")


def test_without_an_agent_one_line_says_how_to_start_it(nobody: Path) -> None:
    for words in (("get", "pods"), ("apply", "-f", "-"), ("status",), ("ipam", "show")):
        ran = run(*words, stdin=PODS)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.startswith(f"error: no agent answers on {nobody} (no such file")
        assert "start it with: " in ran.err
        assert ran.err.endswith("hint: weft explain agent-absent\n")
        assert ran.err.count("error:") == 1
