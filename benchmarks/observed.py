"""The cost of being watched: a daemon whose metrics are scraped, or whose page is open, while it works."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Self

from benchmarks.case import FEW, Contenders
from benchmarks.processes import Watched, pin
from benchmarks.running import METASYNC, Figures, Request, Server, Work, enqueued, server

COLUMNS = {
    "per_second": "updates/s",
    "cpu_us": "CPU µs/update",
    "watching_percent": "CPU for being watched, % of a core",
    "scrape_ms": "CPU ms a scrape",
}
_LOOK_SECONDS = 0.05
_START_SECONDS = 30.0
_IDLE_SECONDS = 10.0  # the time to measure the cost of watching an otherwise idle worker
_SETTLING_SECONDS = 0.2


def _open(url: str) -> HTTPResponse:
    response: HTTPResponse = urllib.request.urlopen(url, timeout=10)  # noqa: S310 -- our own, on loopback
    return response


class Watcher:
    """Asks a daemon again and again until the end of the context.

    Args:
        every_seconds: between scrapes, the first of them after half of it; 0 to keep one stream open.
    """

    def __init__(self, url: str, every_seconds: float) -> None:
        self._url = url
        self._every_seconds = every_seconds
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._stream if every_seconds == 0 else self._scrape, daemon=True)
        self.answers = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _scrape(self) -> None:
        wait_seconds = self._every_seconds / 2
        while not self._left.wait(wait_seconds):
            _open(self._url).read()
            self.answers += 1
            wait_seconds = self._every_seconds

    def _stream(self) -> None:
        with _open(self._url) as stream:
            while not self._left.is_set() and stream.readline():
                self.answers += 1


@contextmanager
def contenders(updates: int) -> Iterator[Contenders]:
    """Unwatched, with a scrape every 15 s, with one every second, and, if there is a page, with an open page."""
    with server(recording=True) as answering:
        idle_seconds = min(_IDLE_SECONDS, max(updates / 3_000, 0.3))
        ways: dict[str, tuple[str, float] | None] = {
            "not watched": None,
            "a scrape every 15 s": ("/metrics", 15.0),
            "a scrape every second": ("/metrics", 1.0),
        }
        if updates < FEW:
            ways.pop("a scrape every 15 s")
        if _has_page(answering):
            ways["the page open"] = ("/events", 0.0)
        yield {name: partial(_observed, answering, updates, way, idle_seconds) for name, way in ways.items()}


def _has_page(answering: Server) -> bool:
    with _daemon(answering, Work(1)) as (_, base):
        try:
            _open(f"{base}/events").close()
        except urllib.error.HTTPError:
            return False
        return True


@contextmanager
def _daemon(answering: Server, work: Work) -> Iterator[tuple[Watched, str]]:
    """A daemon that serves its web surface and ends with the context."""
    with enqueued(answering.base_url, work) as (folder, environment), (Path(folder) / "log").open("wb") as log:
        served = environment | {"METASYNC_HTTP_PORT": "0", "METASYNC_LOG_FORMAT": "json"}
        daemon = Watched([METASYNC, "run"], environment=served, folder=folder, log=log)
        pin(daemon.process.pid, last=False)
        try:
            yield daemon, f"http://127.0.0.1:{_port(Path(log.name))}"
        finally:
            daemon.stop()


def _port(log: Path) -> int:
    """Where the daemon listens: it chose a free port, which nobody can take before."""
    give_up_at = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up_at:
        for line in log.read_text().splitlines(keepends=True):
            if '"web.started"' in line and line.endswith("\n"):
                return int(json.loads(line)["port"])
        time.sleep(_LOOK_SECONDS)
    raise SystemExit("the daemon does not say where it listens")


def _observed(answering: Server, updates: int, way: tuple[str, float] | None, idle_seconds: float) -> Figures:
    answering.take_record()
    with _daemon(answering, Work(updates)) as (daemon, base):
        record: list[Request] = []
        with _watching(base, way):
            while len(record) < updates:
                record += answering.take_record()
                time.sleep(_LOOK_SECONDS)
        first, last = min(request.arrived_at for request in record), record[-1].answered_at
        cpu = daemon.cpu_seconds_at(last) - daemon.cpu_seconds_at(first)
    figures = {"per_second": updates / (last - first), "cpu_us": cpu / updates * 1e6}
    return figures | _idle(answering, updates, way, idle_seconds)


def _idle(answering: Server, updates: int, way: tuple[str, float] | None, seconds: float) -> Figures:
    """The cost of watching beside the same backlog, on a worker that may send one request a minute.

    A difference in throughput of less than a hundredth is lost in the noise; this one is counted in nanoseconds.
    """
    if way is None:
        return {"watching_percent": 0.0, "scrape_ms": 0.0}
    path, every_seconds = way
    work = Work(updates, settings=(("METASYNC_REQUESTS_PER_MINUTE", "1"),))
    with _daemon(answering, work) as (daemon, base):
        time.sleep(_SETTLING_SECONDS)
        unwatched = _share(daemon, seconds)
        # With a scrape a second, each one asks the store anew; the cost of one every 15 s follows from it.
        with Watcher(base + path, min(every_seconds, 1.0)) as watcher:
            time.sleep(_SETTLING_SECONDS)
            before = watcher.answers
            watched = _share(daemon, seconds)
            answers = watcher.answers - before
    share = max(watched - unwatched, 0.0)
    if every_seconds == 0:
        return {"watching_percent": share * 100, "scrape_ms": 0.0}
    each_seconds = share * seconds / max(answers, 1)
    return {"watching_percent": each_seconds / every_seconds * 100, "scrape_ms": each_seconds * 1_000}


def _share(daemon: Watched, seconds: float) -> float:
    """The share of a core that it takes over so long."""
    began = time.monotonic()
    before = daemon.cpu_seconds_at(began)
    time.sleep(seconds)
    ended = time.monotonic()
    time.sleep(_LOOK_SECONDS)  # so that it has been looked at since
    return (daemon.cpu_seconds_at(ended) - before) / (ended - began)


def _watching(base: str, way: tuple[str, float] | None) -> AbstractContextManager[object]:
    return nullcontext() if way is None else Watcher(base + way[0], way[1])
