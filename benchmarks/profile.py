"""`make profile`: a flame graph of the drain, sampled by py-spy, without this machine's paths."""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.processes import pin
from benchmarks.running import METASYNC, Work, queue_url, server, write_changes

TARGET = Path(__file__).parents[1] / "docs" / "performance" / "profile.svg"
PY_SPY = Path(sys.executable).parent / "py-spy"
_FRAME = re.compile(r"<g><title>[^<]*?([\d.]+)%\)</title>.*?</g>", re.DOTALL)
_LEAST_PERCENT = 0.3  # narrower frames cannot be seen, and are most of the file
_FOLDERS = re.compile(r"/[^\s()<>\"]*/(?:site-packages|lib/python[\d.]+|bin)/")


def main() -> None:
    """Drain a queue under py-spy and keep the drawing."""
    parser = argparse.ArgumentParser(prog="make profile", description=__doc__)
    parser.add_argument("--updates", type=int, default=60_000)
    parser.add_argument("--chart", type=Path, default=TARGET)
    arguments = parser.parse_args()
    work = Work(arguments.updates)
    with server() as answering, queue_url("sqlite") as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = work.environment(answering.base_url, url)
        write_changes(folder / "changes.jsonl", work)
        enqueue = [str(METASYNC), "enqueue", "changes.jsonl"]
        subprocess.run(enqueue, env=environment, cwd=folder, check=True, capture_output=True)
        drawing = folder / "profile.svg"
        with (folder / "log").open("wb") as log:
            command = [str(PY_SPY), "record", "--rate", "200", "--format", "flamegraph", "--output", str(drawing)]
            command += ["--", sys.executable, str(METASYNC), "run", "--drain"]
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
            pin(process.pid, last=False)
            if process.wait():
                raise SystemExit((folder / "log").read_text()[-2_000:])
        arguments.chart.parent.mkdir(exist_ok=True)
        arguments.chart.write_text(without_paths(without_slivers(drawing.read_text()).replace(f"{folder}/", "")))


def without_slivers(drawing: str) -> str:
    """Leave out frames that took next to nothing; the frames above took no more."""
    return _FRAME.sub(lambda frame: frame[0] if float(frame[1]) >= _LEAST_PERCENT else "", drawing)


def without_paths(drawing: str) -> str:
    """Name every file by its place in its package, for any folder of Python and of the project."""
    project = str(Path(__file__).parents[1])
    return _FOLDERS.sub("", drawing.replace(f"{project}/.venv", "").replace(f"{project}/", ""))


if __name__ == "__main__":
    main()
