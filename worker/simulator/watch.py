"""What the simulator saw: counters, requests during a retry-after, two requests for one completion at once."""

from collections import Counter
from dataclasses import dataclass, field, fields

from worker.simulator.requests import Operation

# Between a client's new request and its closing of the old one's connection lies a turn of its event loop or two.
_GIVING_UP_SECONDS = 0.1
_MAX_KEPT = 1_000  # of the sentences about violations; the counters go on


@dataclass(slots=True)
class Counters:
    """Counts since the start or the last reset.

    Args:
        requests: by operation and status; 0 where the client got no whole answer. The operation ``unknown`` stands
            for unknown URLs and methods.
        updates_applied: updates that took effect, whether or not the client learned of it.
        throttled: requests that the rate limit rejected.
        faults: by kind; an answer that was ordered counts as ``answer``.
        started_while_closed: requests that came while a retry-after, given before, was running.
        overlapping_updates: pairs of updates of one completion that were in flight together.
        overlapping_reads: pairs of an update and a get of one completion that were in flight together.
        in_flight: requests under way now.
        in_flight_peak: the most of them there were.
    """

    requests: dict[str, Counter[int]] = field(default_factory=dict)
    updates_applied: int = 0
    throttled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    started_while_closed: int = 0
    overlapping_updates: int = 0
    overlapping_reads: int = 0
    in_flight: int = 0
    in_flight_peak: int = 0

    def count(self, operation: str | None = None, status: int | None = None) -> int:
        """How many requests have ended, of all or of this operation, with any or this status."""
        statuses = self.requests.values() if operation is None else [self.requests.get(operation, Counter())]
        return sum(counter.total() if status is None else counter[status] for counter in statuses)

    def ended(self, operation: str, status: int) -> None:
        """Count one request that has ended."""
        counter = self.requests.get(operation)
        if counter is None:
            counter = self.requests[operation] = Counter()
        counter[status] += 1

    def reset(self) -> None:
        """Start anew, but for what is in flight."""
        fresh = Counters(in_flight=self.in_flight, in_flight_peak=self.in_flight)
        for counter in fields(self):
            setattr(self, counter.name, getattr(fresh, counter.name))

    def as_dict(self) -> dict[str, object]:
        """The same as plain values."""
        return {
            "requests": {operation: dict(counter) for operation, counter in self.requests.items()},
            "updates_applied": self.updates_applied,
            "throttled": self.throttled,
            "faults": dict(self.faults),
            "started_while_closed": self.started_while_closed,
            "overlapping_updates": self.overlapping_updates,
            "overlapping_reads": self.overlapping_reads,
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
        }


class Closures:
    """The stretches of time in which no request should start, since a retry-after was given."""

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float]] = []

    def add(self, start: float, until: float, now: float) -> None:
        """A client was told to wait `until`; from `start` on it must know."""
        stretches = [stretch for stretch in self._stretches if stretch[1] > now]
        if stretches and start <= stretches[-1][1]:
            first, last = stretches.pop()
            start, until = min(first, start), max(last, until)
        if until > start:
            stretches.append((start, until))
        self._stretches = stretches

    def hold(self, now: float) -> bool:
        """Whether a request that comes now should not have started."""
        return any(start <= now < until for start, until in self._stretches)


@dataclass(slots=True, eq=False)
class Ticket:
    """One request for one completion, from its arrival until its answer is ready.

    Args:
        overlaps: the requests that came in the meantime and should not have: operation and Unix time.
    """

    completion_id: str
    operation: Operation
    overlaps: list[tuple[Operation, float]] = field(default_factory=list)


class OneWriter:
    """Watches that no request updates a completion while another one updates or reads it.

    An overlap is judged when the earlier request ends. A client that gave that one up and sent another is seen to
    do both in any order: when the end follows so closely, there was no overlap.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._in_flight: dict[str, list[Ticket]] = {}
        self.violations: list[str] = []
        self.read_violations: list[str] = []

    def __repr__(self) -> str:
        return f"<OneWriter [{len(self._in_flight)} completions in flight, {len(self.violations)} violations]>"

    def enter(self, completion_id: str, operation: Operation, now: float) -> Ticket:
        """Note a request, at this Unix time."""
        ticket = Ticket(completion_id, operation)
        others = self._in_flight.setdefault(completion_id, [])
        for other in others:
            if "update" in (operation, other.operation):
                other.overlaps.append((operation, now))
        others.append(ticket)
        return ticket

    def leave(self, ticket: Ticket, now: float, *, abandoned: bool) -> None:
        """Note that a request has ended; `abandoned` where its client went away before the answer."""
        tickets = self._in_flight[ticket.completion_id]
        tickets.remove(ticket)
        if not tickets:
            del self._in_flight[ticket.completion_id]
        for operation, since in ticket.overlaps:
            if not (abandoned and now - since < _GIVING_UP_SECONDS):
                self._record(ticket, operation)

    def _record(self, ticket: Ticket, operation: Operation) -> None:
        if ticket.operation == operation:
            self._counters.overlapping_updates += 1
            _keep(self.violations, f"{ticket.completion_id}: two updates in flight at once")
        else:
            self._counters.overlapping_reads += 1
            _keep(self.read_violations, f"{ticket.completion_id}: a get and an update in flight at once")


def _keep(sentences: list[str], sentence: str) -> None:
    if len(sentences) < _MAX_KEPT:
        sentences.append(sentence)
