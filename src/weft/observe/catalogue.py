"""Every metric that the agent shows. A new one is a line here and a sample in `agent.measures`.

Names follow the conventions of Prometheus: base units, `_total` for what only grows. Labels have
few values by construction: states, verbs, reasons of the code, names of pools. The reference page
and the test of the alert rules read this table.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """One metric family. `help` is one sentence; units are in the name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("weft_build_info", "gauge", "Always 1; what is running.", ("version", "python")),
    Metric("weft_ready", "gauge", "1 if the node can serve ADD, 0 if it cannot."),
    # containers
    Metric(
        "weft_attachments",
        "gauge",
        "Attachments in the journal: intent (being made), ready, leaving (being removed), "
        "imported (made by other plugins).",
        ("state",),
    ),
    Metric(
        "weft_queued_deletions",
        "gauge",
        "DELs that launchers have queued because no agent answered.",
    ),
    # calls of runtimes
    Metric(
        "weft_cni_requests_total",
        "counter",
        "Calls of runtimes that ended, by result: ok, unheard (the launcher had gone), or the "
        "reason of the error.",
        ("verb", "result"),
    ),
    Metric(
        "weft_cni_request_duration_seconds",
        "histogram",
        "From the arrival of a call to its answer.",
        ("verb",),
    ),
    Metric(
        "weft_add_step_duration_seconds",
        "histogram",
        "Where the time of ADD goes: decode, plan (with all waiting), intent (journal), rows, "
        "guards (packet rules), create (the veth pair), tune_host and tune_pod (sysctls), pod and "
        "host (links, addresses, routes), promise (journal), answer.",
        ("step",),
    ),
    Metric("weft_connections", "gauge", "Open connections of launchers and command lines."),
    # addresses
    Metric("weft_pool_size", "gauge", "Addresses that a pool may give.", ("pool",)),
    Metric(
        "weft_pool_addresses",
        "gauge",
        "Addresses of a pool on this node: used, cooling (given back a moment ago), free.",
        ("pool", "state"),
    ),
    # the kernel
    Metric(
        "weft_dropped_packets_total",
        "counter",
        "Packets that the packet rules dropped since the ruleset was made.",
        ("reason",),
    ),
    Metric("weft_row_changes_total", "counter", "Changes sent to the kernel: rows made or taken."),
    Metric("weft_start_rows", "gauge", "Rows that stood on the host when this agent had started."),
    Metric(
        "weft_start_row_changes",
        "gauge",
        "Rows that its start sent to the kernel: 2 (its tables, adopted) when everything stood, 0 "
        "where tables are not protected.",
    ),
    Metric(
        "weft_start_duration_seconds",
        "gauge",
        "From the begin of the agent's process to its first request.",
    ),
    Metric(
        "weft_repairs_total",
        "counter",
        "Damage done by others to objects of weft that was mended.",
        ("kind",),
    ),
    Metric(
        "weft_notification_overflows_total",
        "counter",
        "Notifications of the kernel that were lost; each made the agent look at everything.",
    ),
    Metric(
        "weft_events_total",
        "counter",
        "Events, as `weft get events` shows them.",
        ("level", "reason"),
    ),
    # the agent itself
    Metric("weft_loop_lag_seconds", "histogram", "How late the agent's loop is, once a second."),
    Metric(
        "weft_loop_silence_seconds",
        "gauge",
        "Seconds since the loop last turned; about 1 while it is well.",
    ),
    Metric(
        "weft_watchdog_limit_seconds",
        "gauge",
        "Seconds of silence after which the agent ends itself, to be started again.",
    ),
    Metric(
        "weft_scrape_failures_total",
        "counter",
        "Groups of samples that could not be read for a scrape and are missing in it.",
        ("source",),
    ),
)

PROCESS_METRICS: tuple[Metric, ...] = (
    Metric("process_cpu_seconds_total", "counter", "Processor time of the agent, user and system."),
    Metric("process_max_fds", "gauge", "File descriptors that the agent may have open."),
    Metric("process_open_fds", "gauge", "File descriptors that the agent has open."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of the agent."),
    Metric("process_start_time_seconds", "gauge", "When the agent started, since 1970."),
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory of the agent."),
)
"""What prometheus_client's ProcessCollector reads from /proc, under the names it is known by."""

BY_NAME = {metric.name: metric for metric in METRICS}
