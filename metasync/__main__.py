"""The command, as `metasync` and as `python -m metasync`."""

import sys

from metasync import place


def main() -> int:
    """Run the command line with metasync's own packages; return its exit code."""
    try:
        place.take_ours()
        from worker.cli.main import main as run  # noqa: PLC0415 -- only now it is known whose it is

        return run()
    except ImportError as error:
        sentence = place.explained(error)
        if sentence is None:
            raise
        sys.stderr.write(f"metasync: {sentence}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
