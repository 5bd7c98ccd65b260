"""Changes a second over HTTP, durably, to a process on one core: alone, and during a flood of unauthorised requests."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import insert, machine
from benchmarks.running import METASYNC

RESULTS = Path(__file__).parent / "results" / "intake.json"
DOCS = Path(__file__).parents[1] / "docs"
TOKEN = "token-of-the-benchmark"  # noqa: S105 -- it opens nothing
CHANGES = 100
CONNECTIONS = 8
SECONDS = 20.0
_HEAD = (
    "POST /changes HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
)


def _request(connection: int, batch: int, token: str = TOKEN) -> bytes:
    changes = [
        {"completion_id": f"chatcmpl-{connection}-{batch}-{i}", "metadata": {"grade": "A", "topic": "billing"}}
        for i in range(CHANGES)
    ]
    body = "\n".join(json.dumps(change) for change in changes).encode()
    return _HEAD.format(token=token, length=len(body)).encode() + body


async def _send(port: int, connection: int, until: float, latencies: list[float]) -> None:
    """Send one batch after the other, each made while the one before is under way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request, batch = _request(connection, 0), 0
    while (started := time.perf_counter()) < until:
        writer.write(request)
        batch += 1
        request = _request(connection, batch)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        answer = json.loads(await reader.readexactly(int(length.split(b":")[1])))
        if answer.get("added") != CHANGES:
            raise SystemExit(f"{head!r} {answer}")
        latencies.append(time.perf_counter() - started)
    writer.close()


async def _flood(port: int) -> None:
    """Ask without the token, on one connection after the other, as fast as each is answered or cut."""
    request = _request(0, 0, token="none")  # noqa: S106 -- that is the point

    async def ask() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                await reader.read()
                writer.close()
            except OSError:
                await asyncio.sleep(0.01)

    await asyncio.gather(*[ask() for _ in range(200)])


@contextmanager
def _intake(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The process that takes changes, on the first core."""
    given = {"METASYNC_HTTP_PORT": "0", "METASYNC_INTAKE_TOKEN": TOKEN, "METASYNC_INTAKE_MAX_PENDING": "100000000"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METASYNC_")}
    command = [str(METASYNC), "intake"]
    process = subprocess.Popen(command, cwd=folder, env=kept | given, stderr=subprocess.PIPE, text=True)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        assert process.stderr is not None  # noqa: S101 -- a pipe
        yield process, json.loads(process.stderr.readline())["port"]
    finally:
        process.kill()
        process.communicate()


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(seconds: float, *, flooded: bool) -> dict[str, float]:
    """Send for so long; return the figures by name."""
    with tempfile.TemporaryDirectory() as folder, _intake(Path(folder)) as (process, port):
        strangers = [sys.executable, "-m", "benchmarks.intake", "--flood", str(port)]
        flood = subprocess.Popen(strangers) if flooded else None
        try:
            asyncio.run(_send_all(port, 2.0, []))  # until everything is warm
            before, used = _resident_mib(process.pid), _cpu_seconds(process.pid)
            latencies: list[float] = []
            started = time.perf_counter()
            asyncio.run(_send_all(port, seconds, latencies))
            took = time.perf_counter() - started
            after, used = _resident_mib(process.pid), _cpu_seconds(process.pid) - used
        finally:
            if flood:
                flood.kill()
                flood.wait()
    latencies.sort()
    return {
        "changes a second": len(latencies) * CHANGES / took,
        "changes a second of its CPU time": len(latencies) * CHANGES / used,
        "p50, ms": latencies[len(latencies) // 2] * 1_000,
        "p99, ms": latencies[len(latencies) * 99 // 100] * 1_000,
        "MiB at first": before,
        "MiB in the end": after,
    }


async def _send_all(port: int, seconds: float, latencies: list[float]) -> None:
    until = time.perf_counter() + seconds
    run = time.monotonic_ns()  # no two rounds send the same changes
    await asyncio.gather(*[_send(port, run + i, until, latencies) for i in range(CONNECTIONS)])


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """One line a round."""
    names: Sequence[str] = list(next(iter(found.values())))
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for label, figures in found.items():
        lines.append(f"| {label} | {' | '.join(f'{figures[name]:,.0f}' for name in names)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--flood", type=int, metavar="PORT", help="only ask there without a token, for ever")
    arguments = parser.parse_args()
    if arguments.flood:
        asyncio.run(_flood(arguments.flood))
    found = {
        "quiet": measure(arguments.seconds, flooded=False),
        "200 connections without the token": measure(arguments.seconds, flooded=True),
    }
    print(table(found))
    if arguments.seconds >= SECONDS:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({"machine": machine(), "rounds": found}, indent=1) + "\n")
        about = ", ".join(f"{name} {value}" for name, value in machine().items())
        insert(DOCS / "performance.md", "intake", f"{table(found)}\n\n{about}.")


if __name__ == "__main__":
    main()
