"""Benchmarks by the server's own record of requests: a slow service, and several workers on one queue."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from benchmarks.case import Contenders
from benchmarks.processes import Watched, pin
from benchmarks.running import METASYNC, Figures, Request, Server, Work, drain, enqueued, postgres, server

SLOW_SECONDS = 5.0
_SLOW_SPAN = (10.0, 50.0)  # seconds after the first request: whole round trips, and no slow start
_IN_FLIGHT = 1_000
_LATENCY_SECONDS = 0.05
_FEW = 300  # --quick takes as many

SLOW_COLUMNS = {
    "per_second": "updates/s, 10th to 50th second",
    "percent_of_possible": "of what is possible, %",
    "cpu_percent": "CPU meanwhile, %",
    "ramp_seconds": "s until all are in flight",
    "most_in_flight": "most in flight",
}
WORKERS_COLUMNS = {
    "steady_per_second": "updates/s, middle half",
    "per_second": "first request to last answer",
    "cpu_us": "CPU µs/update",
}


@contextmanager
def slow(updates: int) -> Iterator[Contenders]:
    """Answers take 5 s at any number of them; a run of few updates uses shorter ones."""
    latency_seconds = min(SLOW_SECONDS, updates / 2_400)
    with server(latency_seconds, recording=True) as answering:
        yield {"1,000 in flight": partial(_slow, answering, updates, latency_seconds)}


def _slow(answering: Server, updates: int, latency_seconds: float) -> Figures:
    work = Work(updates, concurrency=_IN_FLIGHT)
    answering.take_record()
    with enqueued(answering.base_url, work) as (folder, environment):
        worker = Watched([METASYNC, "run", "--drain"], environment=environment, folder=folder)
        pin(worker.process.pid, last=False)
        worker.wait()
    record = answering.take_record()
    first = min(request.arrived_at for request in record)
    shrink = min((record[-1].answered_at - first) / _SLOW_SPAN[1], 1.0)
    begin, end = (first + seconds * shrink for seconds in _SLOW_SPAN)
    per_second = sum(begin <= request.answered_at < end for request in record) / (end - begin)
    ramp_seconds, most = _fullest(record)
    return {
        "per_second": per_second,
        "percent_of_possible": per_second / (_IN_FLIGHT / latency_seconds) * 100,
        "cpu_percent": (worker.cpu_seconds_at(end) - worker.cpu_seconds_at(begin)) / (end - begin) * 100,
        "ramp_seconds": ramp_seconds,
        "most_in_flight": most,
    }


def _fullest(record: Sequence[Request]) -> tuple[float, int]:
    """When nearly the most requests were in flight first, in seconds from the first request, and how many."""
    steps = sorted([(request.arrived_at, 1) for request in record] + [(request.answered_at, -1) for request in record])
    in_flight, course = 0, []
    for moment, step in steps:
        in_flight += step
        course.append((moment - steps[0][0], in_flight))
    most = max(count for _, count in course)
    return next(seconds for seconds, count in course if count >= 0.99 * most), most


@contextmanager
def workers(updates: int) -> Iterator[Contenders]:
    """One worker and two, a core each; a run of few updates has no latency that could bind it.

    Bound by latency (50 ms, 64 at once each), two do twice as much as one, unless the queue makes them wait for each
    other. Bound by CPU time, the second has to share its core with the server and the store.
    """
    with ExitStack() as servers:
        store = servers.enter_context(postgres())
        contenders = {}
        bounds = {"50 ms a call": _LATENCY_SECONDS, "CPU-bound": 0.0}
        if updates < _FEW:
            bounds.pop("50 ms a call")
        for bound, seconds in bounds.items():
            answering = servers.enter_context(server(seconds, recording=True))
            for name, place in (("SQLite", "sqlite"), ("PostgreSQL", store)):
                work = Work(updates, spread=True, store=place)
                for count in (1, 2):
                    label = f"{bound}, {name}, {count} worker{'s' if count > 1 else ''}"
                    contenders[label] = partial(_by_the_server, answering, replace(work, workers=count))
        yield contenders


def _by_the_server(answering: Server, work: Work) -> Figures:
    answering.take_record()
    figures = drain(answering.base_url, work)
    record = answering.take_record()
    seconds = record[-1].answered_at - min(request.arrived_at for request in record)
    middle = record[len(record) // 4 : len(record) * 3 // 4 + 1]
    return figures | {
        "per_second": len(record) / seconds,
        "steady_per_second": (len(middle) - 1) / (middle[-1].answered_at - middle[0].answered_at),
    }
