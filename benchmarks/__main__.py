"""`make bench`: metasync end to end against what people write today, as ratios within one run."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONCURRENCY, METADATA, completion_ids

RESULTS = Path(__file__).parent / "results"
METASYNC = Path(sys.executable).parent / "metasync"


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender took for `count` updates."""

    count: int
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float

    @property
    def per_second(self) -> float:
        """Updates a second."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU per update, in the contender's process."""
        return self.cpu_seconds / self.count * 1e6


@contextmanager
def server() -> Iterator[str]:
    """The canned server on the last core; yields its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None  # noqa: S101 -- piped above
    _pin(process.pid, last=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.communicate()


def _pin(process_id: int, *, last: bool) -> None:
    """Keep contender and server on cores of their own, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process_id, {cores[-1]} if last else set(cores[:-1]) or {cores[0]})


def run_contender(name: str, base_url: str, count: int) -> Run:
    """A loop out of `benchmarks.contenders`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contenders", name, base_url, str(count)], stdout=subprocess.PIPE, text=True
    )
    _pin(process.pid, last=False)
    output, _ = process.communicate()
    return Run(count, **json.loads(output))


def run_metasync(base_url: str, count: int) -> Run:
    """The real command over a real queue file, its JSON log in a file; what is measured is `run --drain`."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "METASYNC_QUEUE_URL": f"sqlite:///{folder}/queue.db",
            "METASYNC_MAX_CONCURRENCY": str(CONCURRENCY),
            "METASYNC_LOG_FORMAT": "json",
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "sk-bench",
        }
        changes = Path(folder) / "changes.jsonl"
        with changes.open("w") as file:
            for completion_id in completion_ids(count):
                file.write(json.dumps({"completion_id": completion_id, "metadata": METADATA, "mode": "replace"}) + "\n")
        subprocess.run([METASYNC, "enqueue", changes], env=environment, cwd=folder, check=True, capture_output=True)
        log = Path(folder) / "log.jsonl"
        with log.open("wb") as file:
            process = subprocess.Popen([METASYNC, "run", "--drain"], env=environment, cwd=folder, stderr=file)
            _pin(process.pid, last=False)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return _run_of(log, process.returncode, usage, count)


def _run_of(log: Path, exit_code: int, usage: resource.struct_rusage, count: int) -> Run:
    """What the log says of the run, once it has been checked that it did everything."""
    summary: dict[str, Any] = {}
    applied = 0
    for line in log.open():
        event = json.loads(line)
        if event["event"] == "change.applied":
            applied += event["changes"]
        elif event["event"] == "run.summary":
            summary = event
    if (exit_code, applied, summary.get("applied")) != (0, count, count):
        raise SystemExit(f"metasync ended with {exit_code} and applied {applied} of {count}: {summary}")
    return Run(count, summary["seconds"], usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    """Run everything, print the table, keep the figures as JSON."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--completions", type=int, default=30_000)
    parser.add_argument("--official-completions", type=int, default=2_000, help="fewer: it is slow")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-changes", type=int, default=200_000, help="0 leaves the long drain out")
    arguments = parser.parse_args()
    runs: dict[str, list[Run]] = {"metasync": [], "bare aiohttp loop": [], "openai client": []}
    with server() as base_url:
        for _ in range(arguments.repeats):  # taken in turns, so that a slow minute of the machine hits all alike
            runs["metasync"].append(run_metasync(base_url, arguments.completions))
            runs["bare aiohttp loop"].append(run_contender("bare", base_url, arguments.completions))
            runs["openai client"].append(run_contender("official", base_url, arguments.official_completions))
        long = run_metasync(base_url, arguments.memory_changes) if arguments.memory_changes else None
    _report(runs, long)


def _report(runs: dict[str, list[Run]], long: Run | None) -> None:
    ours = statistics.median(run.per_second for run in runs["metasync"])
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("metasync", "aiohttp", "apsw", "uvloop", "openai")))
    print(f"{CONCURRENCY} at once, median (least to most) of {len(runs['metasync'])} runs\n")
    print(f"{'':20}{'updates/s':>24}{'CPU µs/update':>15}{'peak MB':>9}{'metasync is':>13}")
    for name, of_name in runs.items():
        rates = sorted(run.per_second for run in of_name)
        spread = f"{statistics.median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        cpu_us = statistics.median(run.cpu_us for run in of_name)
        peak_mb = max(run.peak_rss_mb for run in of_name)
        print(f"{name:20}{spread:>24}{cpu_us:>15,.0f}{peak_mb:>9,.0f}{ours / statistics.median(rates):>12.2f}x")
    if long is not None:
        print(f"\ndrain of {long.count:,} changes: peak {long.peak_rss_mb:,.0f} MB, {long.per_second:,.0f} updates/s")
    RESULTS.mkdir(exist_ok=True)
    results = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "concurrency": CONCURRENCY,
        "runs": {name: [_figures(run) for run in of_name] for name, of_name in runs.items()},
        "long": None if long is None else _figures(long),
    }
    (RESULTS / "bench.json").write_text(json.dumps(results, indent=2) + "\n")


def _figures(run: Run) -> dict[str, float]:
    return {
        "count": run.count,
        "per_second": run.per_second,
        "cpu_us": run.cpu_us,
        "seconds": run.seconds,
        "peak_rss_mb": run.peak_rss_mb,
    }


if __name__ == "__main__":
    main()
