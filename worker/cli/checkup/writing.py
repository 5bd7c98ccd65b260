"""Reads and writes of the probe: each on its own connection, retried when that makes sense."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from worker.api import Answer, Client, Kind
from worker.api.transport import Request

_TRIES = 6
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0


class ProbeFailed(Exception):
    """The probe cannot go on; the message is one sentence.

    Args:
        halts: whether it would halt a worker.
    """

    def __init__(self, message: str, *, halts: bool = False) -> None:
        super().__init__(message)
        self.halts = halts


class ProbeClient(Client):
    """A client that can also send updates that a `MetadataChange` does not allow."""

    async def send(
        self, completion_id: str, metadata: Mapping[str, str | None] | None, *, timeout_seconds: float
    ) -> Answer:
        """Update with any `metadata`, null values and null itself included."""
        target = self._endpoint.completion_target(completion_id)
        request = Request("POST", target, self._json_headers, msgspec.json.encode({"metadata": metadata}))
        sent = {key: value for key, value in (metadata or {}).items() if value is not None}
        return await self._call(request, timeout_seconds, asked=completion_id, metadata=sent, fresh=True)


class Desk:
    """Reads and writes one completion.

    `is_unsure` says whether a write without an answer may still take effect; `may_have_written` whether any write may
    have had an effect.

    Args:
        timeout_seconds: for each request.
    """

    def __init__(self, client: ProbeClient, completion_id: str, timeout_seconds: float) -> None:
        self._client = client
        self._completion_id = completion_id
        self._timeout_seconds = timeout_seconds
        self._in_flight: asyncio.Task[Answer] | None = None
        self.is_unsure = False
        self.may_have_written = False

    async def read(self) -> dict[str, str]:
        """Return the metadata as a read shows it.

        Raises:
            ProbeFailed: it cannot be read completely.
        """
        answer = await self._tried(
            lambda: self._client.get(self._completion_id, timeout_seconds=self._timeout_seconds, fresh=True)
        )
        if answer.verdict.kind is not Kind.OK:
            raise _failed("it cannot be read", answer)
        if answer.metadata is None or not answer.whole:
            raise ProbeFailed("a read does not show its metadata, or not all of it as text")
        return answer.metadata

    async def shown(self) -> dict[str, str] | None:
        """Read the metadata on a fresh connection; None if a value is not a string, which null may cause."""
        answer = await self._tried(
            lambda: self._client.get(self._completion_id, timeout_seconds=self._timeout_seconds, fresh=True)
        )
        if answer.verdict.kind is not Kind.OK:
            raise _failed("it cannot be read", answer)
        return answer.metadata if answer.whole else None

    async def write(self, metadata: Mapping[str, str | None] | None) -> Answer:
        """Update; the answer is OK or REJECTED. On cancellation the request continues; await `settled`.

        Raises:
            ProbeFailed: the update failed in another way.
        """
        answer = await self._tried(lambda: self._write(metadata))
        if answer.verdict.kind not in (Kind.OK, Kind.REJECTED):
            raise _failed("it cannot be updated", answer)
        return answer

    async def settled(self) -> None:
        """Wait until no write of ours is under way."""
        if self._in_flight is not None:
            await asyncio.wait([self._in_flight])

    async def _write(self, metadata: Mapping[str, str | None] | None) -> Answer:
        sending = self._client.send(self._completion_id, metadata, timeout_seconds=self._timeout_seconds)
        self._in_flight = asyncio.create_task(sending)
        self._in_flight.add_done_callback(self._ended)
        return await asyncio.shield(self._in_flight)

    def _ended(self, sending: asyncio.Task[Answer]) -> None:
        verdict = None if sending.cancelled() or sending.exception() else sending.result().verdict
        # An answer that is not the service's own may come from a gateway that gave up waiting.
        if verdict is None or verdict.transport or (verdict.kind is Kind.RETRY and not verdict.envelope):
            self.is_unsure = True
        if verdict is None or verdict.kind in (Kind.OK, Kind.RETRY):
            self.may_have_written = True

    @staticmethod
    async def _tried(make: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make the call; retry if the service was busy or did not answer."""
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_TRIES - 1):
            answer = await make()
            if answer.verdict.kind not in (Kind.RETRY, Kind.THROTTLED):
                return answer
            asked = answer.verdict.pause_seconds
            await asyncio.sleep(min(pause if asked is None else asked, _LONGEST_PAUSE_SECONDS))
            pause *= 2
        return await make()


def _failed(what: str, answer: Answer) -> ProbeFailed:
    return ProbeFailed(f"{what}: {answer.verdict.error}", halts=answer.verdict.kind is Kind.HALTED)
