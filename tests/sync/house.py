"""Helpers of the tests of sync."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.api import Answer, Client
from worker.changes import MetadataChange
from worker.simulator import Simulator
from worker.sync.asking import Asking, Terms
from worker.sync.comparing import Comparison, Counts, Difference
from worker.sync.lines import JsonLines
from worker.sync.listing import Filter, Walk
from worker.sync.pulling import Pull
from worker.sync.spool import Spool
from worker.sync.target import Target


def asks(*, halt_timeout_seconds: float = 60.0) -> Asking:
    return Asking(Terms(halt_timeout_seconds=halt_timeout_seconds))


@dataclass(frozen=True)
class House:
    """A simulator and a client of it."""

    simulator: Simulator
    client: Client

    def requests(self, operation: str) -> int:
        return sum(self.simulator.counters.requests.get(operation, {}).values())

    def delete(self, completion_id: str) -> None:
        store = self.simulator._service.store
        store.delete(store.get(completion_id))

    async def walk(
        self,
        wanted: Filter | None = None,
        *,
        client: Any = None,
        between: Callable[[int], Any] | None = None,
        found: list[str] | None = None,
    ) -> list[str]:
        """The ids that a walk comes by, also in `found` where it fails; `between` is called after each page."""
        asking, found = asks(), [] if found is None else found
        walk = Walk(asking, client or self.client, wanted or Filter())

        async def go() -> None:
            number = 0
            async for items in walk.pages():
                found.extend(item.id or "" for item in items)
                number += 1
                if between is not None:
                    between(number)

        await asking.run(go())
        return found

    async def pull(self, path: Path, ids: list[str], **options: Any) -> list[dict[str, Any]]:
        """Pull these by id into a file."""
        asking, spool = asks(), Spool()
        spool.add_ids(ids)
        target = Target.open(str(path), JsonLines(), gzipped=False, **options)
        await asking.run(Pull(asking, self.client, target, tell=lambda *_: None).named(spool))
        target.close()
        spool.close()
        return [json.loads(line) for line in path.read_bytes().splitlines()]  # noqa: ASYNC240 -- a small one

    async def diff(
        self, changes: list[MetadataChange], *, semantics: Any = "unknown", lag_seconds: float = 0.0
    ) -> tuple[list[Difference], Counts]:
        """Compare, with a clock that goes on by what is slept."""
        asking, spool, found = asks(), Spool(), list[Difference]()
        spool.add(changes)
        clock = [0.0]

        async def sleep(seconds: float) -> None:
            clock[0] += seconds
            await asyncio.sleep(0)

        comparison = Comparison(
            asking,
            self.client,
            spool,
            semantics=semantics,
            read_lag_seconds=lag_seconds,
            now=lambda: clock[0],
            sleep=sleep,
        )
        await asking.run(comparison.run(found.append))
        spool.close()
        return found, comparison.counts


class Answers:
    """A service's list that answers as it is told, page after page."""

    def __init__(self, *answers: Callable[[Mapping[str, Any]], Answer]) -> None:
        self._answers = list(answers)
        self.asked: list[Mapping[str, Any]] = []

    async def list(self, **asked: Any) -> Answer:
        self.asked.append(asked)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(asked)
