"""Counters, and violations: requests during a retry-after, concurrent requests for one completion."""

from collections import Counter
from dataclasses import dataclass, field, fields

from worker.simulator.requests import Operation

# A client may send a new request one or two turns of its event loop before it closes the abandoned one.
_GIVING_UP_SECONDS = 0.1
_MAX_KEPT = 1_000  # sentences about violations; the counters are unbounded


@dataclass(slots=True)
class Counters:
    """Counts since the start or the last reset.

    Args:
        requests: by operation and status; 0 if the client got no complete answer. The operation ``unknown`` stands
            for unknown URLs and methods.
        updates_applied: updates that took effect, even if the client does not know.
        throttled: requests that the rate limit rejected.
        faults: by kind; a fault with its own answer counts as ``answer``.
        started_while_closed: requests that arrived during an earlier retry-after.
        overlapping_updates: pairs of concurrent updates of one completion.
        overlapping_reads: pairs of a concurrent update and get of one completion.
        in_flight: current requests.
        in_flight_peak: their maximum.
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
        """Return the number of ended requests, optionally of one operation or status."""
        statuses = self.requests.values() if operation is None else [self.requests.get(operation, Counter())]
        return sum(counter.total() if status is None else counter[status] for counter in statuses)

    def ended(self, operation: str, status: int) -> None:
        """Count an ended request."""
        counter = self.requests.get(operation)
        if counter is None:
            counter = self.requests[operation] = Counter()
        counter[status] += 1

    def reset(self) -> None:
        """Clear all counters except those of requests in flight."""
        fresh = Counters(in_flight=self.in_flight, in_flight_peak=self.in_flight)
        for counter in fields(self):
            setattr(self, counter.name, getattr(fresh, counter.name))

    def as_dict(self) -> dict[str, object]:
        """Return the counters as plain values."""
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
    """The periods in which no request should start, because of a retry-after."""

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float]] = []

    def add(self, start: float, until: float, now: float) -> None:
        """Add a period: the client was told to wait `until`, and must know it from `start` on."""
        stretches = [stretch for stretch in self._stretches if stretch[1] > now]
        if stretches and start <= stretches[-1][1]:
            first, last = stretches.pop()
            start, until = min(first, start), max(last, until)
        if until > start:
            stretches.append((start, until))
        self._stretches = stretches

    def hold(self, now: float) -> bool:
        """Whether a request that arrives now should not have started."""
        return any(start <= now < until for start, until in self._stretches)


@dataclass(slots=True, eq=False)
class Ticket:
    """One request for one completion, from its arrival until its answer is ready.

    Args:
        overlaps: forbidden concurrent requests: operation and Unix time of arrival.
    """

    completion_id: str
    operation: Operation
    overlaps: list[tuple[Operation, float]] = field(default_factory=list)


class OneWriter:
    """Watches that no request updates a completion while another one updates or reads it.

    An overlap is judged when the earlier request ends. If a client abandons a request and sends another, the two events
    may arrive in either order: if the end follows within `_GIVING_UP_SECONDS`, it is no overlap.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._in_flight: dict[str, list[Ticket]] = {}
        self.violations: list[str] = []
        self.read_violations: list[str] = []

    def __repr__(self) -> str:
        return f"<OneWriter [{len(self._in_flight)} completions in flight, {len(self.violations)} violations]>"

    def enter(self, completion_id: str, operation: Operation, now: float) -> Ticket:
        """Register a request, at this Unix time."""
        ticket = Ticket(completion_id, operation)
        others = self._in_flight.setdefault(completion_id, [])
        for other in others:
            if "update" in (operation, other.operation):
                other.overlaps.append((operation, now))
        others.append(ticket)
        return ticket

    def leave(self, ticket: Ticket, now: float, *, abandoned: bool) -> None:
        """Register a request's end; `abandoned` if its client disconnected before the answer."""
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
