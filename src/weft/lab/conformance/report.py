"""What a run found, as a table for people, JSON for programs and JUnit XML for CI."""

from __future__ import annotations

import io
from xml.etree import ElementTree as Xml

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weft.lab.conformance.case import Finding
from weft.lab.conformance.run import Report, summary

_COLOURS = {"pass": "green", "fail": "red", "not applicable": "yellow"}


def table(report: Report, console: Console) -> None:
    """Print one line a test, then the totals."""
    shown = Table(title=f"{' + '.join(report.chain)}, CNI {report.version}", show_lines=False)
    for heading in ("test", "what", "verdict", "reason"):
        shown.add_column(heading, overflow="fold")
    for finding in report.findings:
        colour = _COLOURS[finding.verdict]
        shown.add_row(
            finding.id,
            Text(finding.title),
            Text(finding.verdict, style=colour),
            Text(finding.reason),
        )
    console.print(shown)
    totals = summary(report.findings)
    counted = ", ".join(f"{number} {kind}" for kind, number in totals.items())
    console.print(f"{counted}; {report.calls} executions")


def as_json(report: Report) -> str:
    """The whole report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def junit(report: Report) -> bytes:
    """JUnit XML: one suite a group."""
    top = Xml.Element("testsuites", name=f"CNI conformance of {' + '.join(report.chain)}")
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault(finding.group, []).append(finding)
    for name, findings in groups.items():
        totals = summary(findings)
        suite = Xml.SubElement(
            top,
            "testsuite",
            name=name,
            tests=str(len(findings)),
            failures=str(totals["fail"]),
            skipped=str(totals["not applicable"]),
            time=f"{sum(f.seconds for f in findings):.3f}",
        )
        for finding in findings:
            _test(suite, finding)
    written = io.BytesIO()
    Xml.ElementTree(top).write(written, encoding="utf-8", xml_declaration=True)
    return written.getvalue()


def _test(suite: Xml.Element, finding: Finding) -> None:
    test = Xml.SubElement(
        suite,
        "testcase",
        classname=f"cni.{finding.group}",
        name=f"{finding.id}: {finding.title}",
        time=f"{finding.seconds:.3f}",
    )
    reason = "".join(c if c.isprintable() else "?" for c in finding.reason)
    if finding.verdict == "fail":
        Xml.SubElement(test, "failure", message=reason)
    elif finding.verdict == "not applicable":
        Xml.SubElement(test, "skipped", message=reason)
