"""A command ends though a name server says nothing: the thread that asks it cannot be stopped."""

import sys
from dataclasses import replace

import pytest

from tests.e2e.processes import Command

_DEADLINE_SECONDS = 60.0
_PROGRAM = """
import socket, sys, time
from worker.cli.main import main
sys.modules["uvloop"] = None  # it asks from a thread that is not Python's
socket.getaddrinfo = lambda *_, **__: time.sleep(600)
del sys.argv[1]  # the name of the command
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "code", "output"),
    [
        (("status", "--json", "--store-timeout", "1s"), 75, "it did not answer within 1 second"),
        (("doctor", "--base-url", "https://api.invalid/v1"), 3, "api.invalid was not resolved within"),
        (("run", "--drain", "--store-timeout", "1s"), 75, "it did not answer within 1 second"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_command_does_not_wait_for_a_name_at_its_end(
    words: tuple[str, ...], code: int, output: str, command: Command
) -> None:
    settings = {"OPENAI_API_KEY": "sk-test", "METASYNC_HALT_TIMEOUT": "1s"}
    if words[0] != "doctor":
        settings["METASYNC_QUEUE_URL"] = "redis://queue.invalid/0"
    done = _within(_PROGRAM, command, **settings).run(*words, timeout=_DEADLINE_SECONDS)
    assert done.returncode == code, done.stderr
    assert output in done.stdout + done.stderr


_WITHOUT_THREADS = """
import sys, threading
from worker.cli.main import main
start = threading.Thread.start
def refuse(thread):
    if thread.name == "closing":
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
del sys.argv[1]  # the name of the command
sys.exit(main())
"""


def test_a_command_ends_as_it_should_where_no_further_thread_is_allowed(command: Command) -> None:
    done = _within(_WITHOUT_THREADS, command).run("migrate", timeout=_DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def _within(program: str, command: Command, **settings: str) -> Command:
    """The command, run by a program that gets its name and its words."""
    return replace(command, settings={**command.settings, **settings}, within=(sys.executable, "-c", program))
