"""Runs the command in this process, for tests of its output and exit code alone: much faster."""

from collections.abc import Sequence

from worker.cli.main import main


def run(words: Sequence[str]) -> int:
    """Run to the end, and return the exit code, however it came about."""
    try:
        return main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
