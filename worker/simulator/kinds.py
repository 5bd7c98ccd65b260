"""Faults of requests, and which requests they affect: as frozen values and as flags."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Literal, TypeVar, get_args

from worker.flags import BadValue, Flag
from worker.simulator.answers import Answer, refused
from worker.simulator.delay import count, share
from worker.simulator.requests import Call, Operation, sent_values

FaultKind = Literal[
    "internal_error",
    "bad_gateway",
    "overloaded",
    "quota",
    "unauthorized",
    "forbidden",
    "proxy_auth",
    "misdirected",
    "bare_string",
    "html_400",
    "html_403",
    "html_404",
    "bare_404",
    "wrapped_404",
    "empty_object",
    "status_ok",
    "error_200",
    "dropped",
    "reset",
    "hang",
    "late",
    "cut_off",
    "malformed",
    "empty",
    "no_content",
    "hidden_metadata",
    "foreign",
    "duplicate",
    "shifted",
]
FAULT_KINDS: Mapping[FaultKind, str] = {
    "internal_error": "500",
    "bad_gateway": "502 with a proxy's HTML page",
    "overloaded": "503, code server_is_overloaded",
    "quota": "429, code insufficient_quota",
    "unauthorized": "401, code invalid_api_key, though the key is good",
    "forbidden": "403",
    "proxy_auth": "407, a proxy wants a password",
    "misdirected": "421 with an HTML page",
    "bare_string": "500 whose error is a string, not an object",
    "html_400": "400 with an HTML page",
    "html_403": "403 with a firewall's HTML page",
    "html_404": "404 with an HTML page",
    "bare_404": '404 with {"detail": ...}',
    "wrapped_404": "404 of a gateway that quotes the service",
    "empty_object": "200 with {}",
    "status_ok": '200 with {"status": "ok"}',
    "error_200": "200 with an error, code --error-200-code",
    "dropped": "the connection is closed, nothing is done",
    "reset": "the connection is reset, nothing is done",
    "hang": "no answer, until the client goes away",
    "late": "done, but answered --late-by later",
    "cut_off": "done, but half of the answer is missing",
    "malformed": "done, answered 200 with half of a JSON text",
    "empty": "done, answered 200 with nothing",
    "no_content": "done, answered 204",
    "hidden_metadata": "done, but the answer does not show the metadata",
    "foreign": "done, answered 200 with another completion",
    "duplicate": "done, but the answer is sent twice",
    "shifted": "done, but the answer is sent to the next request on the connection too",
}
"""Every kind of fault, with what the client sees."""

_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that affects some requests.

    Args:
        then: one of the kinds in `worker.simulator.faults`, or a complete answer.
        share: the share of matching requests that it affects; 1 means all.
        on: the operation that it affects.
        completion_id: the completion that it affects; None for any.
        holds: affects only requests with a metadata value that contains this text; None for any.
        done: carry out the request first, even if the kind would not.

    Raises:
        BadValue: the kind or the operation is unknown, or the share is out of range.
    """

    then: FaultKind | Answer
    share: float = 1.0
    on: Operation | Literal["any"] = "any"
    completion_id: str | None = None
    holds: str | None = None
    done: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.then, Answer) and self.then not in FAULT_KINDS:
            raise BadValue("then", f"must be one of {', '.join(FAULT_KINDS)}, not {self.then!r}")
        operations = ("any", *get_args(Operation))
        if self.on not in operations:
            raise BadValue("on", f"must be one of {', '.join(operations)}, not {self.on!r}")
        if not 0 <= self.share <= 1:
            raise BadValue("share", f"of {self.name} must be from 0 to 1, not {self.share}")

    @property
    def name(self) -> FaultKind | Literal["answer"]:
        """The name in the counters."""
        return "answer" if isinstance(self.then, Answer) else self.then

    def concerns(self, call: Call, body: bytes) -> bool:
        """Whether it may affect this request."""
        return (
            self.on in ("any", call.operation)
            and self.completion_id in (None, call.completion_id)
            and (self.holds is None or any(self.holds in value for value in sent_values(body)))
        )


def draw_fault(faults: Sequence[Fault], call: Call, body: bytes, random: Random) -> Fault | None:
    """Draw the fault of one request, with one random number for all faults; None for no fault."""
    point = random.random()
    for fault in faults:
        if fault.concerns(call, body):
            point -= fault.share
            if point < 0:
                return fault
    return None


def check_shares(name: str, faults: Sequence[Fault]) -> None:
    """Raise BadValue if the shares of an operation's faults exceed 1 in total."""
    everywhere = [fault for fault in faults if fault.completion_id is fault.holds is None]
    for operation in get_args(Operation):
        total = sum(fault.share for fault in everywhere if fault.on in ("any", operation))
        if total > 1 + 1e-9:
            raise BadValue(name, f"must not exceed all requests: the shares of {operation} come to {total:g}")


def _ordered(text: str) -> Fault:
    """Parse the value of `--fault`."""
    name, _, part = text.partition("=")
    operation, colon, kind = name.rpartition(":")
    then = _one_of(tuple(FAULT_KINDS), kind, "kind of fault")
    on: Operation | Literal["any"] = "any"
    if colon:
        on = _one_of(get_args(Operation), operation, "operation")
    if share(part) > 1:
        raise ValueError(f"the share {part} is more than all")
    return Fault(then, share(part), on=on)


def _one_of(names: Sequence[_Name], text: str, what: str) -> _Name:
    for name in names:
        if name == text:
            return name
    raise ValueError(f"{text!r} is no {what}; there are {', '.join(names)}")


def _firewall(text: str) -> Fault:
    """Parse the value of `--firewall`."""
    return Fault("html_403", holds=text)


def _poison(text: str) -> Fault:
    """Parse the value of `--poison`."""
    completion_id, equals, status = text.rpartition("=")
    if not (equals and completion_id):
        raise ValueError(f"{text!r} is no ID=STATUS")
    number = count(status)
    if number not in range(200, 600):
        raise ValueError(f"{status} is no status of an answer, 200 to 599")
    return Fault(refused(number).answer(), completion_id=completion_id)


@dataclass(frozen=True, slots=True)
class FaultFlags:
    """The flags for faults.

    Raises:
        BadValue: the shares exceed 1 in total.
    """

    fault: Annotated[
        tuple[Fault, ...],
        Flag(
            "let this share of all requests, or of one operation's (0.01 or 1%), fail in this way; may be repeated",
            metavar="[OPERATION:]KIND=SHARE",
            parse=_ordered,
            keys=FAULT_KINDS,
        ),
    ] = ()
    faults_on: Annotated[
        Literal["any", "update"],
        Flag(
            "the operation of a --fault that names none",
            values={"all": "any", "updates": "update"},
        ),
    ] = "any"
    firewall: Annotated[
        tuple[Fault, ...],
        Flag(
            "answer metadata that has this text in a value with a firewall's page, 403; may be repeated",
            metavar="TEXT",
            parse=_firewall,
        ),
    ] = ()
    poison: Annotated[
        tuple[Fault, ...],
        Flag("always answer with this status for this completion; may be repeated", metavar="ID=STATUS", parse=_poison),
    ] = ()

    def __post_init__(self) -> None:
        check_shares("fault", self.faults())

    def faults(self) -> tuple[Fault, ...]:
        """All faults; specific ones come first, and the random ones apply to the remaining requests."""
        return (*self.poison, *self.firewall, *self._by_lot())

    def _by_lot(self) -> Iterator[Fault]:
        for fault in self.fault:
            yield replace(fault, on=self.faults_on) if fault.on == "any" else fault
