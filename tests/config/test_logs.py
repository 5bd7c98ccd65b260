import json
import logging
from typing import Any

import pytest
import structlog

from config import logs, sink
from worker.cli.exits import Exit
from worker.engine import Ending


def _log_everything() -> None:
    logger = structlog.get_logger()
    logger.debug("too.fine")
    logger.info("change.applied", completion_id="chatcmpl-1", keys=("grade",), note="sk-conceal-me")
    logger.info("odd.text", text="half \ud800 pair", kind=ValueError("x"))
    logging.getLogger("aiohttp").warning("connection %s", "lost")
    try:
        secret_local = "sk-conceal-me"  # noqa: F841 -- must not be shown with the traceback
        raise ZeroDivisionError("sk-conceal-me")  # noqa: TRY301 -- raised to be logged
    except ZeroDivisionError:
        logger.exception("change.crashed")


def test_events_are_one_json_object_a_line_and_hold_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    logs.conceal("sk-conceal-me")
    logs.configure("json", "info")
    _log_everything()
    sink.flush()
    out, err = capfd.readouterr()
    assert out == ""
    assert "sk-conceal-me" not in err
    applied, odd, library, crashed = map(json.loads, err.splitlines())
    assert list(applied)[:3] == ["time", "level", "event"]
    assert (applied["event"], applied["level"], applied["keys"]) == ("change.applied", "info", ["grade"])
    assert odd["text"] == "half \ud800 pair"
    assert (library["logger"], library["message"]) == ("aiohttp", "connection lost")
    assert crashed["exception"][0]["exc_type"] == "ZeroDivisionError"


def _lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    sink.flush()
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_an_informing_line_is_like_any_other(capfd: pytest.CaptureFixture[str]) -> None:
    """The level of an update's line is written in a shorter way."""
    logs.configure("json", "info")
    logger = structlog.get_logger().bind(worker="one", more=1)
    for log in (logger.info, logger.warning):
        log("seen.bare")
        log("seen.%s", "place")
        log("seen.fields", more=2, text="\x7f\u202e caf\N{LATIN SMALL LETTER E WITH ACUTE}", why=ValueError("x"))
        try:
            raise ZeroDivisionError  # noqa: TRY301 -- raised to be logged
        except ZeroDivisionError:
            log("seen.raised", exc_info=True)
    lines = [{name: value for name, value in line.items() if name not in {"time", "level"}} for line in _lines(capfd)]
    assert lines[:4] == lines[4:]
    assert lines[0] == {"event": "seen.bare", "worker": "one", "more": 1}
    assert (lines[1]["event"], lines[2]["more"]) == ("seen.place", 2)
    assert lines[3]["exception"][0]["exc_type"] == "ZeroDivisionError"


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_no_line_is_below_the_level(level: str, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", level)
    for name in ("debug", "info", "warning"):
        getattr(structlog.get_logger(), name)("seen")
    levels = ["debug", "info", "warning"]
    assert [line["level"] for line in _lines(capfd)] == levels[levels.index(level) :]


def test_events_are_text_on_a_console(capfd: pytest.CaptureFixture[str]) -> None:
    logs.conceal("sk-conceal-me")
    logs.configure("console", "info")
    _log_everything()
    sink.flush()
    err = capfd.readouterr().err
    assert "change.applied" in err
    assert "completion_id=chatcmpl-1" in err
    assert "ZeroDivisionError" in err
    assert "too.fine" not in err
    assert "sk-conceal-me" not in err


def test_a_console_shows_the_value_of_an_enum_and_not_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    structlog.get_logger().info("run.summary", exit_code=Exit.DONE, ending=Ending.DRAINED, reasons={Ending.STUCK: 1})
    sink.flush()
    err = capfd.readouterr().err
    assert "exit_code=0" in err
    assert "ending=drained" in err
    assert "{'stuck': 1}" in err
    assert "<" not in err


def test_auto_is_json_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto", "info")
    structlog.get_logger().info("worker.started")
    sink.flush()
    assert json.loads(capfd.readouterr().err)["event"] == "worker.started"
