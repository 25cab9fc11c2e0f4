"""What is counted, how it is shown, and that every name in use is in the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from weft.agent.attach import STEPS
from weft.observe.catalogue import BY_NAME, METRICS, PROCESS_METRICS
from weft.observe.counts import Histogram, Laps
from weft.observe.exposition import Exposition, Sample

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts.yaml"


def shown(exposition: Exposition) -> dict[str, float]:
    """Every series of the plain text but the process's own, with its labels in order."""
    text = exposition.text("")[0].decode()
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in read_plain(text)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_bounds_of_a_histogram_are_inclusive_and_nothing_is_lost() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.total == 7.5


def test_a_lap_lasts_from_the_last_mark_and_is_the_next_mark() -> None:
    laps = Laps(("one", "two"))
    laps.mark(0.0)
    laps.lap("one")
    laps.lap("two")
    assert laps.steps["one"].total > laps.steps["two"].total > 0
    with pytest.raises(KeyError):
        laps.lap("three")


def test_every_step_is_explained_by_the_catalogue() -> None:
    help_ = BY_NAME["weft_add_step_duration_seconds"].help
    assert [step for step in STEPS if not re.search(rf"\b{step}", help_)] == []


def test_samples_are_shown_with_cumulative_buckets() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.5, 5.0):
        histogram.observe(value)

    def source() -> Iterator[Sample]:
        yield Sample("weft_ready", (), 1.0)
        yield Sample("weft_cni_requests_total", ("ADD", "ok"), 3.0)
        yield Sample("weft_cni_request_duration_seconds", ("ADD",), histogram)

    found = shown(Exposition({"some": source}))
    assert found["weft_ready[]"] == 1.0
    assert found["weft_cni_requests_total[('result', 'ok'), ('verb', 'ADD')]"] == 3.0
    name = "weft_cni_request_duration_seconds"
    buckets = [found[f"{name}_bucket[('le', '{le}'), ('verb', 'ADD')]"] for le in (0.1, 1.0)]
    assert buckets == [1.0, 2.0]
    assert found[f"{name}_bucket[('le', '+Inf'), ('verb', 'ADD')]"] == 3.0
    assert found[f"{name}_count[('verb', 'ADD')]"] == 3.0
    assert found[f"{name}_sum[('verb', 'ADD')]"] == pytest.approx(5.55)


def test_a_source_that_fails_is_counted_and_hides_no_other() -> None:
    def broken() -> Iterator[Sample]:
        yield Sample("weft_ready", (), 1.0)
        raise TimeoutError

    exposition = Exposition(
        {"broken": broken, "whole": lambda: [Sample("weft_connections", (), 2.0)]}
    )
    shown(exposition)
    found = shown(exposition)
    assert "weft_ready[]" not in found, "half of a source is none"
    assert found["weft_connections[]"] == 2.0
    assert found["weft_scrape_failures_total[('source', 'broken')]"] == 2.0
    assert found["weft_scrape_failures_total[('source', 'whole')]"] == 0.0


def test_a_sample_that_is_not_in_the_catalogue_is_a_defect() -> None:
    exposition = Exposition({"wrong": lambda: [Sample("weft_surprise", (), 1.0)]})
    with pytest.raises(KeyError):
        exposition.text("")


def test_open_metrics_are_given_to_who_asks_for_them() -> None:
    exposition = Exposition({"one": lambda: [Sample("weft_ready", (), 1.0)]})
    text, kind = exposition.text("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert "weft_ready" in {family.name for family in read_open(text.decode())}


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"weft_[a-z][a-z_]*[a-z]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert metric.help.endswith(".")


def test_process_metrics_are_those_that_the_library_shows() -> None:
    text = Exposition({}).text("")[0].decode()
    found = {
        sample.name
        for family in read_plain(text)
        for sample in family.samples
        if sample.name.startswith("process_")
    }
    assert found == {metric.name for metric in PROCESS_METRICS}


# -- alerts


def rules() -> list[dict[str, object]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def series() -> set[str]:
    """Every series that can be asked for."""
    names = {"up"}
    for metric in (*METRICS, *PROCESS_METRICS):
        tails = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.name + tail for tail in tails}
    return names


def used(expression: str) -> set[str]:
    """Names of series in an expression: words that neither call nor stand in braces or `by`."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby\s*\([^)]*\)', " ", expression)
    return {
        word
        for word, after in re.findall(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(\()?", bare)
        if not after and not re.fullmatch(r"e\d+|by", word)
    }


def test_the_reader_of_expressions_sees_names_and_nothing_else() -> None:
    found = used('histogram_quantile(0.9, sum by (le) (rate(a_bucket{x="b_c"}[5m]))) > 2 * d_e')
    assert found == {"a_bucket", "d_e"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_uses_metrics_that_exist_with_labels_that_they_have(
    rule: dict[str, object],
) -> None:
    expression = str(rule["expr"])
    names = used(expression)
    assert names and names <= series(), names - series()
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
        metric = BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name)) or BY_NAME.get(name)
        labels = {*(metric.labels if metric else ()), "job", "instance", "le"}
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= labels, selector


def test_every_alert_says_what_to_do_and_is_explained_in_the_docs() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for rule in rules():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["summary"] and annotations["description"]
        assert str(rule["alert"]) in page, rule["alert"]
