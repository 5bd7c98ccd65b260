"""The write probe against services with every behaviour for null and empty maps."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from worker.cli.checkup import probe as probing
from worker.cli.checkup.findings import Findings
from worker.cli.checkup.probe import WriteProbe
from worker.cli.checkup.writing import ProbeClient

ID = "chatcmpl-1"
BEFORE = {"a": "1", "b": "2", "c": "3"}

Null = Literal["removes", "keeps", "text", "stored", "500", "400", "ignored"]
Empty = Literal["clears", "keeps", "400", "500"]


@dataclass
class Service:
    """A completion that is updated in a certain way.

    Args:
        null: what null as a value does.
        empty: what an empty map does, and null for a map.
        old_answers: an update's answer shows what was there before it.
        lost: so many updates, from the second on, are swallowed: answered, and not done.
        lag_seconds: how old reads are.
        hidden: so many reads, after the first update, are refused.
        late_seconds: a gateway answers updates that have no pair with 504, and they are done so much later.
    """

    semantics: Literal["merge", "replace"]
    null: Null = "400"
    empty: Empty = "keeps"
    old_answers: bool = False
    lost: int = 0
    lag_seconds: float = 0.0
    hidden: int = 0
    late_seconds: float = 0.0
    metadata: dict[str, Any] = field(default_factory=lambda: dict(BEFORE))
    updates: int = 0
    on_its_way: int = 0
    past: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # when each map was there no more

    def update(self, given: dict[str, Any] | None) -> int:
        """Do it, and give the status."""
        self.updates += 1
        if self.updates > 1 and self.lost:
            self.lost -= 1
            return 200
        if not given:
            if self.empty == "clears":
                self.metadata = {}
            return int(self.empty) if self.empty.isdigit() else 200
        if None in given.values():
            if self.null.isdigit():
                return int(self.null)
            if self.null == "ignored":
                return 200
        base = dict(self.metadata) if self.semantics == "merge" else {}
        nulled = [key for key, value in given.items() if value is None]
        self.metadata = base | given | {key: self._of_null(key) for key in nulled}
        if self.null == "removes":
            self.metadata = {key: value for key, value in self.metadata.items() if key not in nulled}
        return 200

    def _arrive(self) -> None:
        self.on_its_way -= 1
        self.metadata = {}

    def _of_null(self, key: str) -> str | None:
        return {"keeps": self.metadata[key], "text": "null"}.get(self.null)

    async def answer(self, request: web.Request) -> web.Response:
        before = self.metadata
        if request.method == "GET" and self.updates and self.hidden:
            self.hidden -= 1
            return web.json_response({"error": {"message": "no", "code": "invalid_api_key"}}, status=401)
        if request.method == "POST":
            given = json.loads(await request.read())["metadata"]
            if self.late_seconds and not given:
                self.on_its_way += 1
                asyncio.get_running_loop().call_later(self.late_seconds, self._arrive)
                return web.Response(status=504, text="<html>gateway timeout</html>", content_type="text/html")
            status = self.update(given)
            if status != 200:
                return web.json_response({"error": {"message": "no", "type": "invalid_request_error"}}, status=status)
            self.past.append((time.monotonic(), before))
        then = time.monotonic() - self.lag_seconds
        shown = next((metadata for until, metadata in self.past if until > then), self.metadata)
        if request.method == "POST":
            shown = before if self.old_answers else self.metadata
        return web.json_response({"id": ID, "object": "chat.completion", "metadata": shown})


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[ProbeClient]:
    runner = web.ServerRunner(web.Server(service.answer))  # type: ignore[arg-type]  # a request is one of its kind
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with ProbeClient(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-test") as client:
            yield client
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read of this service is old, so that there is nothing to wait for."""
    monkeypatch.setattr(probing, "_LEAST_SECONDS", 0.2)
    monkeypatch.setattr(probing, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr("worker.cli.checkup.restoring._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("worker.cli.checkup.writing._FIRST_PAUSE_SECONDS", 0.001)


async def probed(service: Service, folder: Path, *, patience_seconds: float = 0.5) -> Findings:
    async with serving(service) as client:
        probe = WriteProbe(
            client, ID, timeout_seconds=10.0, patience_seconds=patience_seconds, tell=lambda _: None, folder=folder
        )
        await asyncio.wait_for(probe.run(), 60)
        while service.on_its_way:
            await asyncio.sleep(0.01)
    assert service.metadata == BEFORE
    assert probe.findings.restored
    return probe.findings


@pytest.mark.parametrize("semantics", ["merge", "replace"])
@pytest.mark.parametrize(
    ("null", "says"),
    [
        ("removes", "removes"),
        ("keeps", "keeps"),
        ("text", "other"),
        ("stored", "other"),
        ("400", "rejected"),
        ("500", "fails"),
        ("ignored", "ignored"),
    ],
)
async def test_the_effect_of_null_is_found(semantics: Any, null: Null, says: str, tmp_path: Path) -> None:
    found = await probed(Service(semantics, null=null), tmp_path)
    assert (found.semantics, found.null_value, found.empty_metadata) == (semantics, says, "keeps")


@pytest.mark.parametrize(
    ("empty", "says"), [("clears", "clears"), ("keeps", "keeps"), ("400", "rejected"), ("500", "fails")]
)
async def test_the_effect_of_an_empty_map_is_found(empty: Empty, says: str, tmp_path: Path) -> None:
    found = await probed(Service("merge", empty=empty), tmp_path)
    assert (found.empty_metadata, found.null_metadata, found.error) == (says, says, None)


async def test_answers_with_the_old_metadata_are_reported_and_not_believed(tmp_path: Path) -> None:
    found = await probed(Service("replace", old_answers=True), tmp_path)
    assert (found.semantics, found.answer) == ("replace", "old")


async def test_a_restoring_update_without_effect_is_repeated(tmp_path: Path) -> None:
    # The second update, and the first that puts back, are swallowed.
    found = await probed(Service("replace", lost=2), tmp_path)
    assert found.error is not None
    assert "no read has shown an update" in found.error


async def test_a_read_from_before_the_probe_does_not_count_as_restored(tmp_path: Path) -> None:
    """The probe ends with its first update, and what is to undo that is swallowed: reads show all as it was."""
    service = Service("replace", lost=1, lag_seconds=2.0, hidden=1)
    found = await probed(service, tmp_path, patience_seconds=3.0)
    assert found.error is not None
    assert "cannot be read" in found.error
    assert service.updates == 3


async def test_an_update_that_a_gateway_did_not_wait_for_does_not_come_after_what_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.cli.checkup.restoring._UNSURE_SECONDS", 3.0)
    found = await probed(Service("replace", late_seconds=1.0), tmp_path)
    assert found.null_metadata == "fails"
