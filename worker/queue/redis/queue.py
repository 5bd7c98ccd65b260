"""The queue on a Redis or Valkey server, or on a cluster of them: the contract's calls, spread over the shards."""

import asyncio
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from worker.changes import MetadataChange
from worker.queue.base import (
    Claim,
    DeadLetter,
    DeadSelection,
    Note,
    QueueError,
    QueueStatus,
    QueueUnavailable,
    Revived,
    Settlement,
    Stored,
)
from worker.queue.history import HistoryMinute, Sample, checked, every_minute
from worker.queue.permits import Grant
from worker.queue.redis.address import Address, read_url
from worker.queue.redis.errors import unusable
from worker.queue.redis.library import Library, library
from worker.queue.redis.server import Server
from worker.queue.redis.shard import Bulk, Shard, shard_base

SCHEMA = 1

T = TypeVar("T")
R = TypeVar("R")


class RedisQueue:
    """A queue on Redis or Valkey, for any number of processes of many machines. Made by `RedisQueue.open`.

    All changes of a completion lie in one shard. What a call does in one shard happens whole or not at all; where it
    concerns several shards and fails in one, it may have been done in the others.

    Args:
        warnings: what the server's settings let get lost, one sentence each.
    """

    def __init__(self, server: Server, shards: Sequence[Shard]) -> None:
        self.warnings = server.warnings
        self._server = server
        self._shards = shards
        self._first = 0  # the shard that the next claim begins with
        self._orphans: list[Claim] = []  # whose caller went while further shards were asked
        self._work = asyncio.Event()

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0, functions: Library | None = None) -> Self:
        """Open the queue; its keys come to be as they are needed.

        Args:
            url: ``redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]``, or ``rediss://`` for TLS; ``?shards=16`` on a
                cluster, ``?prefix=NAME`` for several queues in one database.
            timeout_seconds: of every call to the server.
            functions: the library to use, if not the queue's own, whose time is the server's.

        Raises:
            QueueUnusable: the URL is not of this form, or what it names cannot serve as a queue.
            QueueUnavailable: the server does not answer.
        """
        address = read_url(url)
        server = await Server.open(address, functions or library(), timeout_seconds=timeout_seconds)
        try:
            shards = await _shards(server, address)
        except BaseException:
            await server.close()
            raise
        return cls(server, shards)

    def __repr__(self) -> str:
        return f"<RedisQueue {self._server.address} [{'closed' if self._server.closed else 'open'}]>"

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        """Store the changes; see `Queue.put`. What is put again after a failure needs change_ids not to be doubled."""
        parts = self._parts(changes, lambda change: change.completion_id)
        added = sum(await _all([shard.put(part) for shard, part, _ in parts]))
        self._work.set()
        return Stored(added, len(changes) - added)

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        """Lease due targets; see `Queue.claim`. Each call begins with another shard, and the oldest are its own."""
        first, self._first = self._first, (self._first + 1) % len(self._shards)
        claims: list[Claim] = []
        for shard in (*self._shards[first:], *self._shards[:first]):
            if limit <= len(claims):
                break
            try:
                claims += await shard.claim(limit - len(claims), lease_seconds=lease_seconds, owner=owner)
            except QueueUnavailable:
                if not claims:  # what other shards have given must not be lost
                    raise
                break
            except BaseException:
                self._orphans += claims
                raise
        return claims

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run on; see `Queue.extend`."""
        parts = self._parts(claims, lambda claim: claim.completion_id)
        lost = await _all([shard.extend(part, lease_seconds=lease_seconds) for shard, part, _ in parts])
        return _at(claims, parts, lost)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        for settlement in settlements:
            settlement.done()  # raises before anything is changed
        parts = self._parts(settlements, lambda settlement: settlement.claim.completion_id)
        stale = await _all([shard.settle(part) for shard, part, _ in parts])
        self._work.set()
        return _at(settlements, parts, stale)

    async def next_due_seconds(self) -> float | None:
        """Tell when there is work; see `Queue.next_due_seconds`."""
        due = await _all([shard.next_due_seconds() for shard in self._shards])
        return min((seconds for seconds in due if seconds is not None), default=None)

    async def wait_for_work(self, timeout_seconds: float) -> None:
        """Wait for this object's put, settle or retry_dead: what other processes do has to be polled for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        self._work.clear()

    async def status(self) -> QueueStatus:
        """Count what there is; see `Queue.status`."""
        parts = await _all([shard.status() for shard in self._shards])
        ages = [part.oldest_pending_seconds for part in parts if part.oldest_pending_seconds is not None]
        return QueueStatus(
            pending=sum(part.pending for part in parts),
            in_flight=sum(part.in_flight for part in parts),
            waiting=sum(part.waiting for part in parts),
            dead=sum(part.dead for part in parts),
            oldest_pending_seconds=max(ages, default=None),
            recent_per_second=sum(part.recent_per_second for part in parts),
        )

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Read the letters that match, oldest first, in pages; those of several shards are merged by time of death."""
        streams = [_letters(shard, selection) for shard in self._shards]
        heads = [await anext(stream, None) for stream in streams]
        while found := [(head.died_at, place) for place, head in enumerate(heads) if head is not None]:
            _, place = min(found)
            letter = heads[place]
            assert letter is not None  # noqa: S101 -- for the type checker: `found` has no others
            yield letter
            heads[place] = await anext(streams[place], None)

    async def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again; see `Queue.retry_dead`. A large number takes several calls."""
        revived = Revived(0, 0)
        for shard in self._shards:
            async for bulk in _in_bulk(shard, shard.retry_dead, selection):
                revived = Revived(revived.retried + bulk.done, revived.kept + bulk.kept)
                self._work.set()
        return revived

    async def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; see `Queue.purge_dead`. A large number takes several calls."""
        purged = 0
        for shard in self._shards:
            async for bulk in _in_bulk(shard, shard.purge_dead, selection):
                purged += bulk.done
        return purged

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits of the shared rate; see `Queue.take_permits`."""
        return await self._shards[0].take_permits(count, per_minute=per_minute, ahead_seconds=ahead_seconds)

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep or remove a note; see `Queue.write_note`."""
        await self._shards[0].write_note(name, text)

    async def read_notes(self) -> dict[str, Note]:
        """Give all notes; see `Queue.read_notes`."""
        return await self._shards[0].read_notes()

    async def record_sample(self, sample: Sample) -> None:
        """Keep a sample; see `Queue.record_sample`."""
        await self._shards[0].record_sample(sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Give the last minutes; see `Queue.history`."""
        parts = await _all([shard.history(checked(minutes)) for shard in self._shards])
        done: dict[int, tuple[int, ...]] = {}
        for _, part, _ in parts:
            for minute, *counts in part:
                done[minute] = tuple(map(sum, zip(counts, done.get(minute, (0, 0, 0)), strict=True)))
        newest, _, samples = parts[0]
        return every_minute(newest, minutes, [(minute, *counts) for minute, counts in done.items()], samples)

    async def dead_reasons(self) -> dict[str, int]:
        """Count the letters; see `Queue.dead_reasons`."""
        counts: Counter[str] = Counter()
        for part in await _all([shard.dead_reasons() for shard in self._shards]):
            counts.update(part)
        return {reason: count for reason, count in counts.items() if count}

    async def close(self) -> None:
        """Give back what was claimed for nobody, and let go of the server."""
        if self._server.closed:
            return
        try:
            with suppress(QueueError):
                await _all([shard.give_back() for shard in self._shards])
                await self.settle([Settlement(claim, attempts=claim.attempts) for claim in self._orphans])
        finally:
            await self._server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _parts(self, items: Sequence[T], completion_id: Callable[[T], str]) -> list[tuple[Shard, list[T], list[int]]]:
        """Give each shard its items, in their order, with their positions."""
        positions: dict[int, list[int]] = defaultdict(list)
        for position, item in enumerate(items):
            # A stable hash: every process, now and later, has to find a completion in the same shard.
            positions[zlib.crc32(completion_id(item).encode()) % len(self._shards)].append(position)
        return [(self._shards[index], [items[i] for i in mine], mine) for index, mine in positions.items()]


async def _shards(server: Server, address: Address) -> list[Shard]:
    """Give the shards of the queue that is there, or of the one that comes to be.

    Raises:
        QueueUnusable: it is of another release, or has another number of shards.
    """
    schema, count = map(int, await server.call("open", shard_base(address.prefix, 0), SCHEMA, address.shards))
    if schema > SCHEMA:
        raise unusable(
            address, f"a newer metasync wrote it (schema {schema}, this one knows {SCHEMA}); upgrade metasync"
        )
    if count != address.shards:
        raise unusable(address, f"it was made with {count} shards; say ?shards={count} in its URL")
    return [Shard(server, address.prefix, index, count) for index in range(count)]


async def _all(calls: Sequence[Coroutine[Any, Any, R]]) -> list[R]:
    """Wait for every call, then raise the first failure: a shard in trouble cuts no other short."""
    results = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def _at(
    items: Sequence[T], parts: Sequence[tuple[Shard, list[T], list[int]]], found: Sequence[Sequence[int]]
) -> list[T]:
    """Give the items that the shards have found, by their positions within their parts, in their order."""
    positions = [mine[i] for (_, _, mine), places in zip(parts, found, strict=True) for i in places]
    return [items[position] for position in sorted(positions)]


async def _letters(shard: Shard, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
    after: int | None = 0
    while after is not None:
        page, after = await shard.dead_letters(selection, after=after)
        for letter in page:
            yield letter


async def _in_bulk(
    shard: Shard, work: Callable[..., Coroutine[Any, Any, Bulk]], selection: DeadSelection
) -> AsyncIterator[Bulk]:
    """Go through the letters that there are now, one call after another.

    Each is short, since nobody else is served meanwhile; and letters that come back, because what was retried died
    again, are not met a second time.
    """
    until = await shard.newest_dead_letter()
    after: int | None = 0
    while after is not None:
        bulk = await work(selection, after=after, until=until)
        yield bulk
        after = bulk.last
