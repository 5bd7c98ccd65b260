"""The command, as `metasync` and as `python -m metasync`."""

import gc
import os
import sys

from metasync import place


def main() -> int:
    """Run the command line with metasync's own packages; return its exit code."""
    # What is imported stays, so that to look for garbage among it, as often as is usual, is a tenth of a short command.
    gc.set_threshold(10_000, 20, 100)
    # pydantic would ask each installed package for plugins of its own: metasync uses none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
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
    finally:
        gc.freeze()  # the interpreter ends: it need not look through all that there is three times more


if __name__ == "__main__":
    sys.exit(main())
