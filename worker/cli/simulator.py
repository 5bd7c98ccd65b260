"""`metasync simulator`: run the simulated service on a port of this machine."""

import asyncio

from worker.cli import loop, signals
from worker.cli.exits import Exit
from worker.cli.output import flush, say
from worker.simulator import Options, Simulator, epilog

MODEL = Options
EPILOG = epilog()


def execute(arguments: Options) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    loop.run(_serve(arguments))
    return Exit.DONE


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    with signals.handled(lambda _: stop.set()):
        async with Simulator(options) as simulator:
            say(simulator.base_url)
            flush()  # the starting process waits for this line
            await stop.wait()
