"""`weft doctor --fix` on a node: what is ours is mended, what is others' only by name."""

from __future__ import annotations

import json

from acceptance import LAUNCHER, Host
from weft.lab import calls, private

LEFT = "flannel.77"


def tried(said: str) -> dict[str, str]:
    """Results by id of the finding."""
    return {each["id"]: each["result"] for each in json.loads(said)["attempts"]}


def test_fix_mends_ours_and_names_what_is_others(host: Host) -> None:
    # what `weft install` writes there is this node's own
    calls.call(host.node, private.hide, ("/usr/lib/cni",))
    host.shell(f"chmod 0644 {LAUNCHER}; ip link add {LEFT} type bridge")
    mode = host.node.path(LAUNCHER).stat().st_mode
    shown = host.weft("doctor", good=False)
    assert f"chmod 0755 {LAUNCHER}  [--fix]" in shown
    assert f"ip link delete {LEFT}  [--fix; changes flannel]" in shown
    assert host.node.path(LAUNCHER).stat().st_mode == mode, "it was to look only"
    said = host.weft("doctor", "--fix", "--yes")
    assert f"$ chmod 0755 {LAUNCHER}\n      mended" in said
    assert "--foreign flannel allows it" in said
    assert host.node.path(LAUNCHER).stat().st_mode & 0o777 == 0o755
    assert LEFT in host.shell("ip -o link show")
    host.add("after")
    host.drop("after")
    told = tried(_output(host.weft("doctor", "--fix", "-y", "--foreign", "flannel", "-o", "json")))
    assert told == {"other-network": "mended"}
    assert LEFT not in host.shell("ip -o link show")
    host.weft("uninstall")


def _output(said: str) -> str:
    """Standard output, which comes before standard error here."""
    return said[: said.rindex("}\n") + 1]
