"""`make mutants`: puts each fault of the list into a copy of the project, and fails where no test notices one."""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from xml.etree import ElementTree as ET

from tests.mutants.listed import LIST, Mutant, misplaced, read_list
from tests.queue import postgres_server, redis_server

ROOT = Path(__file__).parents[2]
_COPIES = 2  # at work at once
_TEST_SECONDS = 60  # a test that hangs has noticed
_LONGEST_SECONDS = 300
_FAILED = 1  # pytest's exit code for it
# Those that there are besides take three times as long to load as most of these tests to run.
_NO_OTHERS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
_PLUGINS = ("-o", "addopts=", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "mutants")


@dataclass(frozen=True)
class Found:
    """What came of one fault.

    Args:
        complaint: what is wrong with it, or with the tests; empty where they noticed.
    """

    mutant: Mutant
    seconds: float
    complaint: str = ""


class Copy:
    """A copy of the project, in which faults come and go."""

    def __init__(self, root: Path, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment | _NO_OTHERS | {"PYTHONPATH": str(folder)}
        self._changes = 0
        shutil.copytree(root, folder, ignore=_NOT_COPIED)

    def run(self, tests: Sequence[str], store: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run these tests in one process, of those on every store only the ones on this."""
        # By a thread, which ends the process: an exception, raised in a callback, would not end a loop of events.
        limit = ("-o", f"timeout={_TEST_SECONDS}", "-o", "timeout_method=thread")
        words = ["-q", "--tb", "line", *limit, "-k", store, *options, *tests]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *_PLUGINS, *words],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LONGEST_SECONDS,
        )

    def judge(self, mutant: Mutant) -> Found:
        """Put the fault in, see what the tests say, and take it out again."""
        path = self.folder / mutant.file
        text, was = path.read_text(), path.stat()
        started_at = time.monotonic()
        path.write_text(mutant.apply(text))
        self._changes += 1
        # Compiled files go by size and time in seconds: those of a fault must not outlive it.
        os.utime(path, (was.st_atime, was.st_mtime - self._changes * 2))
        try:
            done = self.run(mutant.tests, mutant.store, "-x")
        except subprocess.TimeoutExpired:
            complaint = f"the tests hang for {_LONGEST_SECONDS} s"
        else:
            complaint = _complaint(done)
        finally:
            path.write_text(text)
            os.utime(path, (was.st_atime, was.st_mtime))
        return Found(mutant, time.monotonic() - started_at, complaint)


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == _FAILED:
        return ""
    if done.returncode == 0:
        return "SURVIVED: no test has noticed"
    return f"pytest ended with {done.returncode}:\n{done.stdout[-2_000:]}"


def unsound(copy: Copy, mutants: Sequence[Mutant]) -> str:
    """What is wrong with the tests before there is any fault: one that fails or is skipped anyway notices nothing."""
    report = copy.folder.with_suffix(".xml")
    for store in sorted({mutant.store for mutant in mutants}):
        tests = sorted({test for mutant in mutants if mutant.store == store for test in mutant.tests})
        done = copy.run(tests, store, f"--junitxml={report}")
        if done.returncode:
            return f"without a fault, the tests fail:\n{done.stdout[-4_000:]}"
        skipped = [
            f"{case.get('classname')}.{case.get('name')}"
            for case in ET.parse(report).iter("testcase")  # noqa: S314 -- pytest's own words
            if case.find("skipped") is not None
        ]
        if skipped:
            return f"skipped, so that they notice nothing: {', '.join(skipped)}"
    return ""


def check(mutants: Sequence[Mutant], root: Path, environment: dict[str, str]) -> list[str]:
    """Try these faults; tells what is wrong, as text for people."""
    if complaints := misplaced(mutants, root):
        return complaints
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = SimpleQueue[Copy]()
        first = Copy(root, Path(folder, "0"), environment)
        if complaint := unsound(first, mutants):
            return [complaint]
        copies.put(first)
        for number in range(1, _COPIES):
            copies.put(Copy(root, Path(folder, str(number)), environment))

        def judge(mutant: Mutant) -> Found:
            copy = copies.get()
            try:
                return copy.judge(mutant)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(_COPIES) as pool:
            for found in pool.map(judge, mutants):
                word = "ok" if not found.complaint else "FAILED"
                print(f"{word:6} {found.seconds:5.1f} s  {found.mutant.file}: {found.mutant.promise}", flush=True)  # noqa: T201
                if found.complaint:
                    complaints.append(f"{found.mutant.file}: {found.mutant.promise}: {found.complaint}")
    return complaints


def main() -> int:
    """Run the command; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--list", type=Path, default=LIST, help="another list")
    parser.add_argument("--root", type=Path, default=ROOT, help="another project")
    parser.add_argument("--draw", type=int, help="try so many of them, drawn")
    parser.add_argument("--seed", default="", help="by this text; the same text draws the same ones")
    parser.add_argument("--only", default="", help="try those whose file or promise has this in it")
    given = parser.parse_args()
    mutants = read_list(given.list)
    if complaints := misplaced(mutants, given.root):  # check all, not only the drawn ones
        print(*complaints, sep="\n")  # noqa: T201
        return 1
    mutants = [mutant for mutant in mutants if given.only in f"{mutant.file}: {mutant.promise}"]
    if given.draw is not None:
        mutants = random.Random(given.seed).sample(mutants, min(given.draw, len(mutants)))
        print(f"drawn by the seed {given.seed!r}:")  # noqa: T201
    environment = dict(os.environ)
    if any(test.startswith("tests/queue/") for mutant in mutants for test in mutant.tests):
        environment["METASYNC_TEST_POSTGRES_URL"] = postgres_server.shared_url()
        environment["METASYNC_TEST_REDIS_URL"] = redis_server.shared_url()
    complaints = check(mutants, given.root, environment)
    print(*complaints, f"{len(mutants)} faults tried, {len(complaints)} complaints", sep="\n")  # noqa: T201
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
