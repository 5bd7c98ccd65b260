"""The `metasync` command: finds the verb, imports what that verb needs and nothing else, and runs it."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import SIGINT

from worker.cli import signals
from worker.cli.exits import Exit

TYPE_CHECKING = False  # as type checkers understand it: importing typing takes long, and signals are to be caught
if TYPE_CHECKING:
    from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: without the program's name; by default those of the process, whose signals are then caught, too.
    """
    if argv is not None:
        try:
            return _run(argv)
        finally:
            _flush()
    words = sys.argv[1:]
    try:
        signals.catch()
        _open_what_is_closed()
        if isinstance(sys.stdout, io.TextIOWrapper):  # what the locale cannot write is escaped, as on standard error
            # And whatever PYTHONUNBUFFERED says, a few lines are written at the end, when it is known how that came.
            sys.stdout.reconfigure(errors="backslashreplace", write_through=False)
        code = _run(words)
        signals.ignore()
    except BaseException as error:
        stopped = error if isinstance(error, signals.Stopped) else signals.raised()
        if stopped is None:
            raise
        with suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        signals.leave(_exit_code(stopped, words))
    return code


def _run(words: Sequence[str]) -> int:
    from worker.cli.verbs import VERBS, module_of, parser_of  # noqa: PLC0415 -- signals are caught first

    name = next((word for word in words if not word.startswith("-")), None)
    namespace, unknown = parser_of([name] if name in VERBS else []).parse_known_args(words)
    if unknown:
        namespace.parser.refuse(unknown)
    if namespace.version:
        from worker.cli import version  # noqa: PLC0415 -- what it reads takes as long as all the rest of `--help`

        return _guarded(version.execute, version.Version(verbose=namespace.verbose))
    if namespace.verbose:
        namespace.parser.error("-v goes with --version")
    if name is None or "read" not in namespace:  # nothing was asked for, or a verb without its action
        namespace.parser.print_help(sys.stderr)
        return Exit.USAGE
    return _guarded(module_of(name).execute, namespace.read(namespace))


def _guarded(execute: "Callable[[Any], int]", arguments: object) -> int:
    """Turn what a person can mend into one sentence and an exit code; everything else keeps its traceback."""
    from config.settings import ConfigurationError  # noqa: PLC0415 -- pydantic is slow to import: not for --help
    from worker.cli.flags import Configured  # noqa: PLC0415 -- likewise
    from worker.cli.output import OutputLost, flush, silence_stdout, tell  # noqa: PLC0415 -- likewise
    from worker.queue import QueueMisnamed, QueueUnavailable  # noqa: PLC0415 -- likewise

    code: int | None = None
    try:
        code = execute(arguments)
        flush()
    except (ConfigurationError, QueueMisnamed) as error:
        tell(f"metasync: {arguments.explain(error) if isinstance(arguments, Configured) else error}")
        return Exit.USAGE
    except QueueUnavailable as error:
        tell(f"metasync: {error}")
        return Exit.RUN_AGAIN
    except BrokenPipeError:  # whoever read our output has seen enough
        silence_stdout()
        return Exit.DONE if code is None else code
    except OutputLost as error:
        silence_stdout()
        tell(f"metasync: {error}")
        return code or Exit.INTERNAL_ERROR
    return code


def _open_what_is_closed() -> None:
    """Have standard input, output and error be something: else the next file or socket would be taken for them."""
    for number, name, mode in ((0, "stdin", "r"), (1, None, "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if name is not None:  # standard output stays none: what was done is said on standard error then
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 -- no path


def _exit_code(stopped: signals.Stopped, words: Sequence[str]) -> Exit:
    """What it means that a signal has ended the command: a daemon has nothing else to wait for."""
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb in {"simulator", "intake"} or (verb == "run" and "--drain" not in words):
        return Exit.DONE
    if stopped.number is SIGINT and verb != "run":
        return Exit.INTERRUPTED
    return Exit.RUN_AGAIN


def _flush() -> None:
    from config.sink import flush  # noqa: PLC0415 -- signals are caught first

    flush()


if __name__ == "__main__":
    sys.exit(main())
