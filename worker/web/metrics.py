"""Metrics in Prometheus' format, collected at each scrape, so that counting costs the worker next to nothing.

No label contains an id, a key or a value.
"""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from worker.engine.outcome import Deferral
from worker.engine.tallies import Distribution, Tallies
from worker.engine.totals import Totals
from worker.flow import FlowState
from worker.flow.gate import GateState
from worker.queue import REASONS, QueueStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


# Exported from the start, so that the first event is a step from 0.
_OUTCOMES = (
    ("applied", ""),
    ("unchanged", ""),
    ("superseded", ""),
    *(("dead", reason) for reason in REASONS),
    *((deferral.value, "") for deferral in Deferral),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The input of one scrape.

    Args:
        flow: None before the worker has started.
        status: the queue's; None while its store does not answer.
        lag_seconds, worst_lag_seconds: the event loop's lag, at the last tick and at its worst.
        dropped_lines: log lines that were not written.
    """

    tallies: Tallies
    flow: FlowState | None
    is_paused: bool
    status: QueueStatus | None
    lag_seconds: float
    worst_lag_seconds: float
    dropped_lines: int


class Metrics:
    """Renders readings, together with the process's own metrics."""

    def __init__(self) -> None:
        self._figures = _Figures()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._figures)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self, reading: Reading) -> bytes:
        """Return the text of a scrape."""
        self._figures.reading = reading
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(self) -> None:
        self.reading: Reading | None = None

    def collect(self) -> Iterator[Metric]:
        return iter(()) if self.reading is None else families(self.reading)


def families(reading: Reading) -> Iterator[Metric]:
    """Yield every metric of metasync."""
    yield InfoMetricFamily(
        "metasync_build", "What runs.", {"version": version("metasync"), "python": platform.python_version()}
    )
    yield from _tallied(reading.tallies)
    yield _counter("metasync_retries", "Requests made again after a failure.", Totals(reading.tallies).retries)
    yield _counter("metasync_leases_lost", "Claims lost while they were worked on.", reading.tallies.leases_lost)
    yield _counter("metasync_stale_outcomes", "Outcomes refused because the lease was lost.", reading.tallies.stale)
    yield _counter("metasync_dead_expired", "Dead letters deleted for their age.", reading.tallies.letters_expired)
    yield _counter("metasync_log_dropped", "Lines of the log that were not written.", reading.dropped_lines)
    if reading.flow is not None:
        yield from _flow(reading.flow)
    yield _gauge("metasync_paused", "1 while the queue is paused.", float(reading.is_paused))
    yield _gauge("metasync_store_up", "Whether the queue's store answers, and can be written.", float(_is_up(reading)))
    if reading.status is not None:
        yield from _queue(reading.status)
    yield _gauge("metasync_event_loop_lag_seconds", "How late the event loop's last tick was.", reading.lag_seconds)
    yield _gauge("metasync_event_loop_worst_lag_seconds", "How late any tick was.", reading.worst_lag_seconds)


def _tallied(tallies: Tallies) -> Iterator[Metric]:
    changes = CounterMetricFamily("metasync_changes", "Changes by outcome.", labels=["outcome", "reason"])
    for outcome, reason in _OUTCOMES:
        changes.add_metric([outcome, reason], tallies.outcomes[outcome, reason])
    yield changes
    requests = CounterMetricFamily(
        "metasync_requests", "Requests to the service by how they ended.", labels=["operation", "status", "error"]
    )
    for (operation, status, error), count in tallies.requests.items():
        requests.add_metric([operation, status, error], count)
    yield requests
    yield _histograms(
        "metasync_request_duration_seconds",
        "From a request to its answer's last byte.",
        tallies.request_seconds.items(),
    )
    folded = HistogramMetricFamily("metasync_request_changes", "Changes that one update carried.")
    folded.add_metric([], *_buckets(tallies.changes_per_request))
    yield folded
    yield _histograms("metasync_store_duration_seconds", "Calls to the queue's store.", tallies.store_seconds.items())
    errors = CounterMetricFamily("metasync_store_errors", "Calls to the store that failed.", labels=["operation"])
    for operation in tallies.store_seconds:
        errors.add_metric([operation], tallies.store_errors[operation])
    yield errors


def _flow(state: FlowState) -> Iterator[Metric]:
    yield _gauge("metasync_requests_in_flight", "Requests under way.", state.in_flight)
    yield _gauge("metasync_request_slots", "How many may be under way at once.", state.slots)
    meaning = "The rate aimed at; while no limit is known, that of late."
    yield _gauge("metasync_request_rate_per_second", meaning, state.rate_per_second)
    if state.rate_limit_per_second is not None:
        yield _gauge("metasync_rate_limit_per_second", "The service's limit, as found.", state.rate_limit_per_second)
    yield _counter("metasync_throttles", "Answers 429 that were about the rate.", state.throttled)
    yield _counter("metasync_closed_seconds", "How long the service made all requests wait.", state.seconds_closed)
    gate = GaugeMetricFamily("metasync_gate_state", "1 for the state that the gate is in.", labels=["state"])
    for each in GateState:
        gate.add_metric([each.value], float(state.gate is each))
    yield gate
    halted = GaugeMetricFamily("metasync_halted", "1 while everything is halted, and why.", labels=["reason"])
    if state.halt_reason is not None:
        halted.add_metric([state.halt_reason], 1.0)
    yield halted


def _is_up(reading: Reading) -> bool:
    return reading.status is not None and reading.tallies.store_error is None


def _queue(status: QueueStatus) -> Iterator[Metric]:
    depth = GaugeMetricFamily("metasync_queue_changes", "Changes in the queue.", labels=["state"])
    depth.add_metric(["due"], status.pending - status.in_flight - status.waiting)
    depth.add_metric(["in_flight"], status.in_flight)
    depth.add_metric(["waiting"], status.waiting)
    depth.add_metric(["dead"], status.dead)
    yield depth
    yield _gauge(
        "metasync_queue_oldest_age_seconds", "Age of the oldest pending change.", status.oldest_pending_seconds or 0.0
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)


def _histograms(name: str, documentation: str, distributions: Iterable[tuple[str, Distribution]]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=["operation"])
    for operation, distribution in distributions:
        family.add_metric([operation], *_buckets(distribution))
    return family


def _buckets(distribution: Distribution) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative buckets, as Prometheus needs them, and the sum."""
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
    return buckets, distribution.total
