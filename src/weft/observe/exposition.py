"""Samples -> the text that Prometheus and OpenMetrics readers understand.

prometheus_client writes the text and knows the formats; it is imported with the first scrape, in
the scraping thread, so that an agent that nobody scrapes does not carry it. Its global registry
and default collectors are not used. A source that fails is missing in this scrape and counted;
one fault must not hide all the other figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from weft.observe.catalogue import BY_NAME
from weft.observe.counts import Histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector

FAILURES = "weft_scrape_failures_total"


class Sample(NamedTuple):
    """One value of a metric of the catalogue; `labels` in the order of its label names."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


Source = Callable[[], Iterable[Sample]]


class Exposition:
    """The text of all sources, with the process's own figures."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        """`sources` by name; each is called once a scrape, in the scraping thread."""
        self._sources = sources
        self._process: Collector | None = None
        self.failures: Counter[str] = Counter()

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the best format that an Accept header asks for."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        # it asks for nothing but `collect`
        return encode(cast("Collector", self)), kind

    def collect(self) -> Iterator[Family]:
        """prometheus_client asks this at every scrape."""
        found: dict[str, list[Sample]] = {}
        for name, source in self._sources.items():
            try:
                samples = list(source())
            except Exception:  # whatever it is: the others are still worth having
                self.failures[name] += 1
                continue
            for sample in samples:
                found.setdefault(sample.name, []).append(sample)
        found[FAILURES] = [
            Sample(FAILURES, (name,), float(self.failures[name])) for name in self._sources
        ]
        for name, samples in found.items():
            yield family(name, samples)
        yield from self._own_process()

    def _own_process(self) -> Iterable[Family]:
        if self._process is None:
            from prometheus_client.process_collector import ProcessCollector

            self._process = ProcessCollector(registry=None)
        return self._process.collect()


def family(name: str, samples: Sequence[Sample]) -> Family:
    """All samples of one metric. Raises KeyError for a metric that is not in the catalogue."""
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    metric = BY_NAME[name]
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for sample in samples:
            if isinstance(sample.value, Histogram):
                buckets, total = _buckets(sample.value)
                histogram.add_metric(sample.labels, buckets, total)
        return histogram
    plain = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = plain(name, metric.help, labels=metric.labels)
    for sample in samples:
        if not isinstance(sample.value, Histogram):
            made.add_metric(sample.labels, sample.value)
    return made


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum."""
    counts, total = list(histogram.counts), histogram.total
    bounds = [*map(repr, histogram.bounds), "+Inf"]
    found, running = [], 0
    for bound, count in zip(bounds, counts, strict=True):
        running += count
        found.append((bound, float(running)))
    return found, total
