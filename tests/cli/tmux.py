"""A terminal in tmux, whose screen a test can read at any width."""

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import METASYNC, Command

TMUX = shutil.which("tmux")
_ROWS = 60
_LONGEST_SECONDS = 60.0
_BETWEEN_LOOKS_SECONDS = 0.05  # each is a process


@dataclass(frozen=True)
class Pane:
    """A terminal in which one command runs."""

    server: tuple[str, ...]
    columns: int

    def screen(self, *flags: str) -> str:
        """What is to be seen now, line by line; `-J` joins lines that wrapped, `-e` keeps colours."""
        done = subprocess.run(
            [*self.server, "capture-pane", "-p", *flags], capture_output=True, text=True, check=True, timeout=20
        )
        return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n")

    def wait_until(self, pattern: str) -> str:
        """Look until this is to be seen, and return the screen."""
        ends_at = time.monotonic() + _LONGEST_SECONDS
        while not re.search(pattern, shown := self.screen(), re.MULTILINE):
            assert time.monotonic() < ends_at, f"no {pattern!r} in:\n{shown}"
            time.sleep(_BETWEEN_LOOKS_SECONDS)
        return shown

    def wait_until_ended(self) -> str:
        """Wait for the command's end, and return all that was written, with wrapped lines joined."""
        subprocess.run([*self.server, "wait-for", "ended"], check=True, timeout=_LONGEST_SECONDS)
        return self.screen("-J", "-S", "-")


@contextmanager
def terminal(command: Command, *words: str, columns: int) -> Iterator[Pane]:
    """The command in a terminal of this width; the exit code is the last thing on its screen."""
    folder = Path(command.folder)
    server = (str(TMUX), "-S", str(folder / f"tmux-{columns}"), "-f", "/dev/null")
    end = shlex.join([*server, "wait-for", "-S", "ended"])
    script = f"{shlex.join([METASYNC, *words])}; echo exit=$?; {end}; sleep 600"
    size = ("-x", str(columns), "-y", str(_ROWS))
    environment = command.environment | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    environment.pop("TMUX", None)
    set_here = [word for name, value in command.settings.items() for word in ("-e", f"{name}={value}")]
    subprocess.run(
        [*server, "new-session", "-d", *size, *set_here, "/bin/sh", "-c", script],
        cwd=folder,
        env=environment,
        check=True,
        timeout=20,
    )
    try:
        yield Pane(server, columns)
    finally:
        subprocess.run([*server, "kill-server"], check=False, timeout=20)
