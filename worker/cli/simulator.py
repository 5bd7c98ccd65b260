"""`metasync simulator`: the service on a port of this machine."""

import argparse
import asyncio
import signal

from worker.cli.exits import Exit
from worker.cli.output import say
from worker.simulator import Options, Simulator, add_arguments, options_from

__all__ = ["add_arguments", "execute"]


def execute(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    asyncio.run(_serve(options_from(arguments)))
    return Exit.DONE


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(options) as simulator:
        say(simulator.base_url)
        await stop.wait()
