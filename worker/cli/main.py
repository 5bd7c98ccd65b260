"""The `metasync` command: finds the verb, imports what that verb needs and nothing else, and runs it."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, cast

from worker.cli.exits import Exit
from worker.cli.output import tell

VERBS = {
    "demo": "see it at work: a simulated service, 2,000 sample changes, every result checked",
    "apply": "enqueue change files and apply them until nothing is left",
    "enqueue": "validate change files and store what they hold",
    "run": "the worker: a daemon, or with --drain until nothing is left",
    "status": "what is pending, in flight, waiting and dead",
    "dead": "list, show, retry or purge the dead letters",
    "simulator": "the service on a port of this machine, with limits, lag and faults to order",
    "migrate": "create or upgrade the queue's schema, or print it",
    "settings": "the effective settings, each with its source",
}


class Verb(Protocol):
    """What each verb's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's flags."""

    def execute(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: without the program's name; those of the process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if not word.startswith("-")), None)
    verb = cast("Verb", import_module(f"worker.cli.{name}")) if name in VERBS else None
    arguments = _parser(name, verb).parse_args(words)
    if verb is None:  # argparse has ended the program already for anything but an empty command line
        return Exit.USAGE
    return _guarded(verb, arguments)


def _parser(chosen: str | None, verb: Verb | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metasync",
        description="Keeps the metadata of stored chat completions in line with a durable queue of pending changes.",
        epilog="exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 done but for changes that were "
        "refused or are dead letters, 75 not finished: run again, 77 halted until somebody acts, 130 second Ctrl-C",
    )
    parser.add_argument("--version", action="version", version=f"metasync {version('metasync')}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in VERBS.items():
        subparser = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen and verb is not None:
            verb.add_arguments(subparser)
    return parser


def _guarded(verb: Verb, arguments: argparse.Namespace) -> int:
    """Turn what a person can mend into one sentence and an exit code; everything else keeps its traceback."""
    from config.settings import ConfigurationError  # noqa: PLC0415 -- pydantic is slow to import: not for --help
    from worker.queue import QueueUnavailable, QueueUnusable, QueueUnwritable  # noqa: PLC0415 -- likewise

    try:
        code = verb.execute(arguments)
        sys.stdout.flush()
    except (ConfigurationError, QueueUnusable, QueueUnwritable) as error:
        tell(f"metasync: {error}")
        return Exit.USAGE
    except QueueUnavailable as error:
        tell(f"metasync: {error}")
        return Exit.RUN_AGAIN
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    return code


if __name__ == "__main__":
    sys.exit(main())
