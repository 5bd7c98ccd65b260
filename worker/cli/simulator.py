"""`metasync simulator`: run the simulated service on a port of this machine."""

import asyncio

from config.settings import ConfigurationError
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
    simulator = Simulator(options)
    with signals.handled(lambda _: stop.set()):
        try:
            await simulator.start()
        except OSError as error:
            reason = error.strerror or error
            raise ConfigurationError(f"cannot listen on {options.host}, port {options.port}: {reason}") from None
        try:
            say(simulator.base_url)
            flush()  # the starting process waits for this line
            await stop.wait()
        finally:
            await simulator.stop()
