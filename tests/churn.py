"""Pods that come and go without a pause, as a process on a node: `python churn.py NAME...`.

Each turn: a namespace, ADD, CHECK, DEL, and the namespace is removed. What a runtime tries again
(code 11) is tried again and counted; everything else that fails is kept for the report, which is
printed as JSON when standard input ends.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from weft.lab import entering

LAUNCHER = "/opt/cni/bin/weft"
PATIENCE = 20.0


class Churn:
    """One pod at a time, by turns."""

    def __init__(self) -> None:
        self.turns = self.again = 0
        self.failures: list[str] = []
        self.longest: dict[str, float] = {}

    def turn(self, name: str) -> None:
        entering.create(Path("/run/netns", name))
        result = self._call("ADD", name)
        if result is not None:
            self._call("CHECK", name, prevResult=result)
        self._call("DEL", name)
        entering.remove(Path("/run/netns", name))
        self.turns += 1

    def _call(self, verb: str, name: str, **keys: Any) -> Any:
        """The result of a call that in the end was good; None for a failure, which is kept."""
        conf = json.dumps({"cniVersion": "1.1.0", "name": "weft", "type": "weft", **keys})
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": f"/run/netns/{name}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        }
        deadline = time.monotonic() + PATIENCE
        while True:
            began = time.monotonic()
            done = subprocess.run([LAUNCHER], env=env, input=conf.encode(), capture_output=True)
            took = time.monotonic() - began
            self.longest[verb] = max(self.longest.get(verb, 0.0), took)
            if done.returncode == 0:
                return json.loads(done.stdout) if done.stdout else {}
            try:
                code = json.loads(done.stdout)["code"]
            except (ValueError, KeyError):
                code = None
            if verb == "DEL" or code != 11 or time.monotonic() > deadline:
                self.failures.append(f"{verb} {name}: {done.returncode} {done.stdout!r}"[:600])
                return None
            self.again += 1
            time.sleep(0.05)


def main() -> None:
    """Until standard input ends."""
    churn = Churn()
    names = sys.argv[1:]
    while not select.select([0], [], [], 0)[0]:
        churn.turn(names[churn.turns % len(names)])
    print(json.dumps(vars(churn)))


if __name__ == "__main__":
    main()
