"""The `metasync` command: find the verb, import only its module, and run it."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import SIGINT

from worker.cli import signals
from worker.cli.exits import Exit

TYPE_CHECKING = False  # type checkers know this name; importing typing would delay the signal handlers
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: without the program's name; None for the process's own, which also catches its signals.
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
        if isinstance(sys.stdout, io.TextIOWrapper):  # escape what the locale cannot encode, as standard error does
            # Buffer output even with PYTHONUNBUFFERED, so that `flush` at the end can report a failed write.
            sys.stdout.reconfigure(errors="backslashreplace", write_through=False)
        code = _run(words)
        signals.ignore()
    except BaseException as error:
        stopped = error if isinstance(error, signals.Stopped) else signals.raised()
        if stopped is None:
            raise
        _leave(_exit_code(stopped, words))
    if signals.is_stuck():
        _leave(code)
    return code


def _leave(code: int) -> "NoReturn":
    """End the process without waiting for threads."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    signals.leave(code)


def _run(words: Sequence[str]) -> int:
    from worker.cli.verbs import VERBS, module_of, parser_of  # noqa: PLC0415 -- signals are caught first

    name = next((word for word in words if not word.startswith("-")), None)
    namespace, unknown = parser_of([name] if name in VERBS else []).parse_known_args(words)
    if unknown:
        namespace.parser.refuse(unknown)
    if namespace.version:
        from worker.cli import version  # noqa: PLC0415 -- as slow as the rest of `--help`

        return _guarded(version.execute, version.Version(verbose=namespace.verbose))
    if namespace.verbose:
        namespace.parser.error("-v goes with --version")
    if name is None or "read" not in namespace:  # no verb, or a verb without its action
        namespace.parser.print_help(sys.stderr)
        return Exit.USAGE
    return _guarded(module_of(name).execute, namespace.read(namespace))


def _guarded(execute: "Callable[[Any], int]", arguments: object) -> int:
    """Turn errors that a user can fix into a sentence and an exit code; others keep their traceback."""
    from config.settings import ConfigurationError  # noqa: PLC0415 -- pydantic is slow to import: not for --help
    from worker.cli.flags import Configured  # noqa: PLC0415 -- likewise
    from worker.cli.output import OutputLost, flush, silence_stdout, tell  # noqa: PLC0415 -- likewise
    from worker.queue import QueueMisnamed, QueueUnavailable  # noqa: PLC0415 -- likewise
    from worker.temporary import NoRoom  # noqa: PLC0415 -- likewise
    from worker.threads import NoThread  # noqa: PLC0415 -- likewise

    code: int | None = None
    try:
        code = execute(arguments)
        flush()
    except (ConfigurationError, QueueMisnamed) as error:
        tell(f"metasync: {arguments.explain(error) if isinstance(arguments, Configured) else error}")
        return Exit.USAGE
    except (QueueUnavailable, NoRoom, NoThread) as error:
        tell(f"metasync: {error}")
        return Exit.RUN_AGAIN
    except BrokenPipeError:  # the reader of the output has closed the pipe
        silence_stdout()
        return Exit.DONE if code is None else code
    except OutputLost as error:
        silence_stdout()
        tell(f"metasync: {error}")
        return code or Exit.INTERNAL_ERROR
    return code


def _open_what_is_closed() -> None:
    """Open closed standard streams, or the next file or socket would get their descriptors."""
    for number, name, mode in ((0, "stdin", "r"), (1, None, "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
            if name is not None:  # standard output stays None; the report goes to standard error then
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 -- no path


def _exit_code(stopped: signals.Stopped, words: Sequence[str]) -> Exit:
    """Return the exit code after a signal; for a daemon, a signal is the normal end."""
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
