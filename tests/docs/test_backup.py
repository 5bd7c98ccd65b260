"""What docs/backup.md says of a move to another store."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.docs.snippets import snippet
from tests.e2e.processes import METASYNC, Command
from tests.queue.helpers import bury
from worker.changes import MetadataChange
from worker.queue import PendingSelection, open_queue

MOVED = ("metadata", "mode", "change_id", "as_of")


def test_the_commands_move_what_is_pending_with_its_order_and_its_times(tmp_path: Path) -> None:
    old, new = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
    changes: list[dict[str, Any]] = [
        {"completion_id": "c-1", "metadata": {"a": "1"}, "as_of": 1764324900.123456, "change_id": "first"},
        {"completion_id": "c-2", "metadata": {"a": "1"}, "mode": "replace"},
        {"completion_id": "c-1", "metadata": {"a": None, "b": "2"}, "as_of": 1764324900.1234},
        {"completion_id": "c-1", "metadata": {}, "mode": "replace", "as_of": 1764324900},
    ]
    asked = asyncio.run(_fill(old, changes))
    command = Command(tmp_path, {})
    text = snippet("docs/backup.md", "move")
    for line in ("OLD=sqlite:///metasync.db", "NEW=postgresql://metasync:password@db.example.com:5432/app"):
        assert line in text
        text = text.replace(line, f"{line[:3]}={old if line.startswith('OLD') else new}")
    environment = command.environment | {"PATH": f"{Path(METASYNC).parent}:{command.environment['PATH']}"}
    subprocess.run(["/bin/bash", "-ec", text], cwd=tmp_path, env=environment, check=True, timeout=120)

    assert asyncio.run(_pending(new)) == asked
    [letter] = json.loads((tmp_path / "dead.json").read_text())
    assert (letter["completion_id"], letter["as_of"]) == ("dead", "2025-11-28T10:15:00.500Z")
    assert (tmp_path / "dead.json").stat().st_mode & 0o077 == 0


async def _fill(url: str, changes: list[dict[str, Any]]) -> dict[str, list[list[object]]]:
    """Store the changes and a dead letter; return what is pending."""
    async with open_queue(url) as queue:
        await bury(queue, MetadataChange("dead", {"a": "1"}, as_of=1764324900.5))
        for number, each in enumerate(changes):
            await queue.put(each, batch=f"batch-{number}")
    return await _pending(url)


async def _pending(url: str) -> dict[str, list[list[object]]]:
    """What is to be moved of each change, by completion, in order."""
    found: dict[str, list[list[object]]] = {}
    async with open_queue(url) as queue:
        async for change in queue.pending_changes(PendingSelection()):
            found.setdefault(change.completion_id, []).append([getattr(change, name) for name in MOVED])
    return found
