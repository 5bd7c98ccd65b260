"""Messages say what to do next, and do not mislead."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from worker.cli.apply import summary_text
from worker.cli.intake import Enqueued
from worker.cli.progress import how_far, progress_line
from worker.cli.words import flow_words
from worker.engine import Ending, Summary
from worker.engine.tallies import Tallies
from worker.engine.totals import Totals
from worker.flow import Cause, FlowState, GateState

_NOTHING_LEFT: Mapping[str, str] = MappingProxyType({})


def _halted(next_probe_in_seconds: float | None, slowed_by: Cause | None = None) -> FlowState:
    return FlowState(
        rate_per_second=0.0,
        rate_limit_per_second=None,
        in_flight=0,
        slots=1,
        throttled=0,
        requests=5,
        seconds_closed=0.0,
        gate=GateState.HALF_OPEN if next_probe_in_seconds is None else GateState.HALTED,
        cause=Cause("unauthorized", "HTTP 401", 401),
        slowed_by=slowed_by,
        halted_for_seconds=9.0,
        next_probe_in_seconds=next_probe_in_seconds,
        closed_for_seconds=0.0,
    )


def _open(slowed_by: Cause | None = None) -> FlowState:
    return replace(
        _halted(0.0, slowed_by),
        rate_per_second=1.0,
        gate=GateState.OPEN,
        cause=None,
        halted_for_seconds=None,
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "a probe is under way"),
        (0.0, "probe with the next change that is due"),
        (4.2, "probe in 4 s"),
    ],
)
def test_a_halt_says_when_it_is_asked_again(seconds: float | None, words: str) -> None:
    assert flow_words(_halted(seconds))[0] == f"HALTED: unauthorized: HTTP 401, {words}"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            Cause("absent", "HTTP 404: Completion chatcmpl-1 not found", 404),
            "absent: HTTP 404: Completion chatcmpl-1 not found",
        ),
        (Cause("rejected"), "rejected"),
    ],
)
def test_what_all_meet_alike_is_said_first_while_it_slows(cause: Cause, words: str) -> None:
    assert flow_words(_open(slowed_by=cause)) == [f"SLOWED: {words}", "0 in flight", "60/min"]


def test_the_limit_found_comes_before_what_changes_all_the_time() -> None:
    words = flow_words(replace(_open(), rate_limit_per_second=500 / 60, throttled=12))
    assert words == ["limit found 500/min", "0 in flight", "60/min", "12 throttled"]
    done = how_far(123_456, 2_000_000, 3_600.0)
    assert "limit found 500/min" in progress_line([done, *words], 80)


def test_nothing_is_said_of_being_slowed_where_nothing_is() -> None:
    assert flow_words(_open()) == ["0 in flight", "60/min"]


def test_a_halt_is_said_rather_than_what_slowed_before_it() -> None:
    words = flow_words(_halted(4.2, slowed_by=Cause("absent", "HTTP 404", 404)))
    assert words[0].startswith("HALTED: unauthorized")
    assert "SLOWED" not in " ".join(words)


def _text(ending: Ending, cause: Cause | None = None, left: Mapping[str, str] = _NOTHING_LEFT, applied: int = 0) -> str:
    tallies = Tallies()
    tallies.outcomes["applied", ""] = tallies.leftover = applied
    reason = cause.reason if cause else None
    summary = Summary(
        ending,
        reason,
        empty=False,
        totals=Totals(tallies),
        requests=0,
        throttled=0,
        seconds=1.0,
        cause=cause,
        left=left,
        closed_for_seconds=90.0,
    )
    return summary_text(summary, Enqueued(), 0.1)


_STAYS = "the rest stays in the queue"
_CONTINUES = "`metasync run --drain` continues"


@pytest.mark.parametrize(
    ("ending", "cause", "why", "then"),
    [
        (Ending.HALTED, Cause("quota", "HTTP 429"), "halted: quota: HTTP 429", f"fix the cause, then {_CONTINUES}"),
        (Ending.OUTAGE, Cause("outage", "HTTP 503"), "outage: HTTP 503", _CONTINUES),
        (Ending.STUCK, None, "stuck: the remaining changes keep failing", _CONTINUES),
        (Ending.CLOSED, None, "the service asks to wait for another 90 s", _CONTINUES),
    ],
)
def test_a_summary_says_why_it_is_not_finished(ending: Ending, cause: Cause | None, why: str, then: str) -> None:
    assert _text(ending, cause).splitlines()[-1] == f"not finished ({why}); {_STAYS}: {then}"


def test_a_summary_names_what_is_left_and_why() -> None:
    assert "left: chatcmpl-000007: HTTP 500" in _text(Ending.STUCK, left={"chatcmpl-000007": "HTTP 500"}).splitlines()


def test_a_summary_says_once_what_the_service_kept() -> None:
    assert [line.split()[:2] for line in _text(Ending.STUCK, applied=3).splitlines() if "leftover" in line] == [
        ["leftover", "3"]
    ]
