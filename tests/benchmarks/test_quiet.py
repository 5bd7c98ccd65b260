"""Other processes' CPU time is told apart from the benchmark's own."""

import os
import subprocess
import sys

import pytest

from benchmarks.quiet import Clocks, Noise
from benchmarks.report import spread

BURN = "import time\nwhile time.process_time() < 0.6: pass"
# Its parent ends at once, so it is no descendant of this process.
ORPHAN = f"import os\nif os.fork() == 0:\n    os.setsid()\n    exec({BURN!r})\n    os.write(1, b'done')"


def _now() -> Clocks:
    clocks = Clocks.now()
    if clocks is None:
        pytest.skip("this system has no /proc/stat")
    return clocks


def test_time_of_children_and_grandchildren_is_counted() -> None:
    before = _now()
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}]); exec({BURN!r})"
    subprocess.run([sys.executable, "-c", nested], check=True)
    assert _now().ours - before.ours >= 1.1


def test_time_of_a_running_child_is_counted() -> None:
    before = _now()
    code = f"{BURN}\nprint('done', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        taken = _now().ours - before.ours
        child.communicate(b"\n")
    assert taken >= 0.5  # clocks tick a hundredth of a second apart


def test_other_processes_time_is_not_counted() -> None:
    reading, writing = os.pipe()
    before = _now()
    subprocess.run([sys.executable, "-c", ORPHAN], check=True, stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "done"
    after = _now()
    assert after.busy - before.busy - (after.ours - before.ours) >= 0.5
    assert before.until(after).load > 0


def test_a_machine_that_was_not_quiet_is_said_to_be_so() -> None:
    noise = Clocks(10.0, 1.0, 100.0, 5.0).until(Clocks(60.0, 6.0, 145.0, 45.0))
    assert noise == Noise(load=0.1, steal=0.05)
    assert str(noise) == "others took 10.0% of the cores, the host's other guests 5.0% (NOT QUIET: measure again)"
    quiet = Clocks(10.0, 1.0, 100.0, 5.0).until(Clocks(60.0, 1.0, 150.0, 55.0))
    assert (quiet, quiet.is_much) == (Noise(0.0, 0.0), False)
    assert str(quiet).endswith("(quiet)")


def test_how_far_runs_lie_apart_is_told_by_the_worst() -> None:
    measured = {"ours": [{"rate": 10.0}, {"rate": 11.0}], "theirs": [{"rate": 10.0}, {"rate": 15.0}]}
    assert spread(measured, {"rate": "updates/s"}) == "runs lie at most 40% apart (theirs)"
    assert "not known" in spread({"ours": [{"rate": 10.0}]}, {"rate": "updates/s"})
