"""The simulator's flags: their effect, and how bad values are refused."""

import argparse
import shlex
from dataclasses import fields

import pytest

from worker.flags import add_arguments
from worker.simulator import Delay, Fault, Options, RateLimit, epilog
from worker.simulator.answers import refused
from worker.simulator.kinds import FAULT_KINDS


def parse(line: str) -> Options:
    parser = argparse.ArgumentParser(
        prog="metasync simulator", epilog=epilog(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, Options)
    namespace = parser.parse_args(shlex.split(line))
    options = namespace.read(namespace)
    assert isinstance(options, Options)
    return options


def test_without_flags_everything_is_as_by_default() -> None:
    assert parse("") == Options()


ORDERS = {
    "--host ::1 --port 8080": Options(host="::1", port=8080),
    "--api-key sk-1": Options(api_key="sk-1"),
    "--completions 7": Options(completions=7),
    "--semantics merge": Options(semantics="merge"),
    "--seed -3": Options(seed=-3),
    "--lag 4": Options(lag_seconds=Delay(4)),
    "--lag 1s-6s": Options(lag_seconds=Delay(1, up_to_seconds=6)),
    "--latency 250ms": Options(latency=Delay(0.25)),
    "--update-latency 3.6s~0.3": Options(update_latency=Delay(3.6, spread=0.3)),
    "--text 'a secret' --model m": Options(text="a secret", model="m"),
    "--hide-metadata": Options(show_metadata=False),
    "--reject bad": Options(rejected_text="bad"),
    "--quota-code credit_balance_exhausted": Options(quota_code="credit_balance_exhausted"),
    "--history 9": Options(history=9),
    "--closed-grace 0.5s": Options(closed_grace_seconds=0.5),
    "--limit 500": Options(limit=RateLimit(500)),
    "--limit 60 --limit-kind bucket --burst 5": Options(limit=RateLimit(60, burst=5)),
    "--limit 60 --limit-kind fixed-window --window 10s": Options(
        limit=RateLimit(60, kind="fixed-window", window_seconds=10)
    ),
    "--limit 60 --limit-kind sliding-window --window 1m": Options(
        limit=RateLimit(60, kind="sliding-window", window_seconds=60)
    ),
    "--limit 60 --rejects-are-free --retry-after date": Options(limit=RateLimit(60, rejected_count=False, hint="date")),
    "--limit 60 --rate-limit-headers per-day --throttle-code slow_down": Options(
        limit=RateLimit(60, headers="per-day", code="slow_down")
    ),
    "--fault hang=0.25 --fault cut_off=1% --faults-on updates": Options(
        faults=(Fault("hang", 0.25, on="update"), Fault("cut_off", 0.01, on="update"))
    ),
    "--fault get:hidden_metadata=1 --fault update:reset=1": Options(
        faults=(Fault("hidden_metadata", on="get"), Fault("reset", on="update"))
    ),
    "--fault hang=0.1 --firewall drop --poison a=b=503": Options(
        faults=(
            Fault(refused(503).answer(), completion_id="a=b"),
            Fault("html_403", holds="drop"),
            Fault("hang", 0.1),
        )
    ),
    "--fault overloaded=1 --overloaded-retry-after 2m": Options(
        faults=(Fault("overloaded"),), overloaded_retry_after_seconds=120
    ),
    "--fault late=1 --late-by 2s-3s": Options(faults=(Fault("late"),), late_seconds=Delay(2, up_to_seconds=3)),
    "--fault error_200=1 --error-200-code slow_down": Options(faults=(Fault("error_200"),), error_200_code="slow_down"),
    "--stale-reads 0s-2s": Options(stale_reads_seconds=Delay(0, up_to_seconds=2)),
    "--trim-values 64": Options(trim_values=64),
    "--stream-time 3s": Options(stream_seconds=Delay(3)),
}


@pytest.mark.parametrize("line", ORDERS)
def test_flags_order_what_they_say(line: str) -> None:
    assert parse(line) == ORDERS[line]


def test_every_option_can_be_ordered_by_a_flag() -> None:
    default = Options()
    ordered = {
        field.name
        for options in ORDERS.values()
        for field in fields(Options)
        if getattr(options, field.name) != getattr(default, field.name)
    }
    assert ordered == {field.name for field in fields(Options)}


BAD_LINES = {
    "--port 70000": "--port",
    "--port x": "--port",
    "--completions -1": "--completions",
    "--semantics patch": "--semantics",
    "--seed x": "--seed",
    "--lag soon": "--lag",
    "--lag 6s-1s": "--lag",
    "--lag 1s~": "--lag",
    "--latency -1s": "--latency",
    "--update-latency 1s~nan": "--update-latency",
    "--history many": "--history",
    "--closed-grace 1d": "--closed-grace",
    "--limit 0": "--limit",
    "--limit inf": "--limit",
    "--limit 60 --limit-kind leaky": "--limit-kind",
    "--limit 60 --burst 0.5": "--burst",
    "--limit 60 --limit-kind fixed-window --burst 2": "--burst",
    "--limit 60 --window 5s": "--window",
    "--limit 60 --limit-kind fixed-window --window 0s": "--window",
    "--limit 60 --retry-after soon": "--retry-after",
    "--limit 60 --rate-limit-headers some": "--rate-limit-headers",
    "--limit 60 --throttle-code stop": "--throttle-code",
    "--burst 2": "--burst",
    "--window 5s": "--window",
    "--rejects-are-free": "--rejects-are-free",
    "--retry-after ms": "--retry-after",
    "--fault explosion=1": "--fault",
    "--fault hang": "--fault",
    "--fault hang=120%": "--fault",
    "--fault hang=0.6 --fault dropped=0.6": "--fault",
    "--fault updates:hang=1": "--fault",
    "--fault update:hang=0.6 --fault dropped=0.6": "--fault",
    "--faults-on reads": "--faults-on",
    "--poison chatcmpl-1": "--poison",
    "--poison =500": "--poison",
    "--poison chatcmpl-1=99": "--poison",
    "--late-by soon": "--late-by",
    "--stale-reads 1d": "--stale-reads",
    "--trim-values some": "--trim-values",
    "--stream-time x": "--stream-time",
    "--overloaded-retry-after x": "--overloaded-retry-after",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_flag_is_a_usage_error_that_names_it(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2
    assert f"argument {BAD_LINES[line]}: " in capsys.readouterr().err


def test_the_help_shows_every_flag_and_an_example_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    example = shown.partition("  metasync simulator ")[2].replace("\\\n", " ")
    options = parse(example)
    assert options.completions == 1_000
    assert options.limit == RateLimit(500)
    assert options.faults == (Fault("internal_error", 0.01, on="update"), Fault("cut_off", 0.01, on="update"))
    assert {line.split()[0] for line in shown.partition("kinds of fault")[2].splitlines() if line[:2] == "  "} >= set(
        FAULT_KINDS
    )
    for line in ORDERS:
        for word in shlex.split(line):
            assert not word.startswith("--") or word in shown
