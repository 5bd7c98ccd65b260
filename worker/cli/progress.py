"""What a person at a terminal sees while the worker runs: one line that keeps itself current."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from io import StringIO
from typing import Any, NoReturn

from tqdm import tqdm

from worker.cli.words import flow_words
from worker.engine import Worker

_REFRESH_SECONDS = 0.2


class Terminal(StringIO):
    """Standard error, for log lines that are to stand above the progress line."""

    def write(self, text: str) -> int:
        """Put the text above the progress line."""
        tqdm.write(text, file=sys.stderr, end="")
        return len(text)


def show_progress(pending: int | None) -> Callable[[Worker], Coroutine[Any, Any, None]]:
    """Show how far a worker is, until cancelled.

    Args:
        pending: changes that there are to do; None where there is no end to them.
    """

    async def show(worker: Worker) -> None:
        bar: tqdm[NoReturn]
        with tqdm(total=pending, unit=" changes", dynamic_ncols=True, file=sys.stderr, leave=False) as bar:
            try:
                while True:
                    _refresh(bar, worker)
                    await asyncio.sleep(_REFRESH_SECONDS)
            finally:
                _refresh(bar, worker)

    return show


def _refresh(bar: "tqdm[NoReturn]", worker: Worker) -> None:
    bar.n = worker.totals.changes
    words = [f"{worker.totals.dead} dead"] if worker.totals.dead else []
    state = worker.flow_state()
    bar.set_postfix_str(", ".join(words + (flow_words(state) if state else [])), refresh=True)
