"""`metasync page`: print a link that opens a worker's page and signs in."""

import time
from dataclasses import dataclass
from typing import ClassVar

from worker.cli.exits import Exit
from worker.cli.flags import Configured
from worker.cli.output import say, tell


@dataclass(frozen=True, slots=True)
class Page(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = ("http_port",)


MODEL = Page


def execute(arguments: Page) -> int:
    """Print a link for each worker, or for the one on the configured port."""
    from worker.web.link import links  # noqa: PLC0415 -- slow to import, and not for a bad setting

    port = arguments.load().settings.http_port
    found = links(port or None, time.time())
    for link in found:
        say(link)
    if not found:
        where = f"on port {port} " if port else ""
        tell(f"metasync page: no worker of this user serves a page {where}on this machine; is METASYNC_HTTP_PORT set?")
        return Exit.USAGE
    return Exit.DONE
