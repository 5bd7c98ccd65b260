"""Draws sync.svg: a terminal in which `pull` and `diff` go there and back. `make picture`; a test compares."""

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "sync.svg"
METASYNC = Path(sys.executable).parent / "metasync"

LABELS = """\
{"completion_id": "chatcmpl-000001", "metadata": {"grade": "A", "draft": null}}
{"completion_id": "chatcmpl-000002", "metadata": {"topic": "refunds"}, "mode": "replace"}
{"completion_id": "chatcmpl-000003", "metadata": {"topic": "billing"}}
"""
BEFORE = """\
{"completion_id": "chatcmpl-000001", "metadata": {"draft": "yes"}}
{"completion_id": "chatcmpl-000002", "metadata": {"topic": "billing"}}
{"completion_id": "chatcmpl-000003", "metadata": {"topic": "billing"}}
"""
# What is typed, and whether its output belongs into the picture.
STEPS = (
    ("metasync pull -o before.jsonl --of labels.jsonl", True),
    ("metasync diff --read-lag 0 labels.jsonl", True),
    ("metasync apply labels.jsonl", False),
    ("metasync diff --read-lag 0 labels.jsonl", True),
    ("metasync apply before.jsonl", False),
    ("metasync diff --read-lag 0 --summary before.jsonl", True),
)
_COLORS = {"32": "#3fb950", "33": "#d29922", "31": "#f85149"}
_BACKGROUND, _TEXT, _DIM = "#0d1117", "#e6edf3", "#8b949e"
_CHARACTER, _LINE, _LEFT, _TOP, _COLUMNS = 8.4, 20, 16, 24, 84
_COLORED = re.compile(r"\x1b\[(\d+)m(.*?)\x1b\[0m")


def record() -> list[str]:
    """Run the steps against a simulated service in an empty folder; what a person sees, line by line."""
    with tempfile.TemporaryDirectory() as folder:
        simulator = subprocess.Popen(  # noqa: S603 -- our own
            [METASYNC, "simulator", "--completions", "3"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            assert simulator.stdout is not None  # noqa: S101 -- piped
            url = next(word for word in simulator.stdout.readline().split() if word.startswith("http"))
            return list(_typed(Path(folder), url))
        finally:
            simulator.terminate()
            simulator.communicate()


def _typed(folder: Path, url: str) -> Iterator[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METASYNC_", "OPENAI_", "NO_"))}
    environment = kept | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-picture", "METASYNC_LOG_FORMAT": "json"}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "METASYNC_LOG_LEVEL": "error"}
    (folder / "labels.jsonl").write_text(LABELS)
    (folder / "there.jsonl").write_text(BEFORE)
    _run("metasync apply there.jsonl", folder, environment)
    for words, is_shown in STEPS:
        output = _run(words, folder, environment)
        yield f"$ {words}"
        yield from output.splitlines() if is_shown else ()


def _run(words: str, folder: Path, environment: dict[str, str]) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 -- our own
        [METASYNC, *words.split()[1:]], cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4_096):
            written += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    process.wait()
    return written.decode().replace("\r\n", "\n")


def draw(lines: list[str]) -> str:
    """The lines as an SVG document."""
    width, height = 2 * _LEFT + _CHARACTER * _COLUMNS, 2 * _TOP + _LINE * (len(lines) - 1)
    text = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    size = f'viewBox="0 0 {width:.0f} {height}" font-family="{text}" font-size="14"'
    label = "A terminal: pull, diff, apply, diff and the way back"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
            f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
            *(_drawn(line, _TOP + _LINE * number) for number, line in enumerate(lines)),
            "</svg>\n",
        ]
    )


def _drawn(line: str, y: int) -> str:
    fill = _TEXT if line.startswith("$ ") else _DIM
    parts, end = [], 0
    for match in _COLORED.finditer(line):
        parts.append(escape(line[end : match.start()]))
        parts.append(f'<tspan fill="{_COLORS[match[1]]}">{escape(match[2])}</tspan>')
        end = match.end()
    parts.append(escape(line[end:]))
    return f'<text x="{_LEFT}" y="{y}" fill="{fill}" xml:space="preserve">{"".join(parts)}</text>'


def main() -> None:
    """Draw it anew."""
    TARGET.write_text(draw(record()))


if __name__ == "__main__":
    main()
