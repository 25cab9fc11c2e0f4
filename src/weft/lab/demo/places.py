"""Where `up` puts things. Rule: a new place is also a line of deploy/footprint."""

from __future__ import annotations

import sys
from pathlib import Path

from weft.model.settings import PathSettings

CHECKOUT = Path(__file__).resolve().parents[4]
PROGRAM = Path(sys.executable).parent / "weft"
ON_PATH = Path("/usr/local/bin/weft")

CNI_BIN = Path("/opt/cni/bin")
CNI_BIN_DEBIAN = Path("/usr/lib/cni")  # where Debian's containerd and CRI-O look
CNI_CONF = Path("/etc/cni/net.d")
CONFLIST = CNI_CONF / "10-weft.conflist"
PLUGIN = "weft"

RUN = Path("/run/weft")
SOCKET = RUN / "agent.sock"
QUERY = Path(PathSettings().query_socket).parent  # only where the settings name a group
STATE = Path("/var/lib/weft")
RECORD = STATE / "undo.jsonl"
LOGS = Path("/var/log/weft")
LOG = LOGS / "agent.log"
SUPERVISOR = RUN / "supervisor.pid"

SYSTEMD = Path("/run/systemd/system")
UNITS = Path("/etc/systemd/system")
UNIT_NAMES = ("weft-boot.service", "weft.socket", "weft.service")

NETNS = Path("/run/netns")
CONTAINERS = ("weft-demo-a", "weft-demo-b")
OUTSIDE = "weft-demo-outside"
UPLINK = "weft-demo0"
