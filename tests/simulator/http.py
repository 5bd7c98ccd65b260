"""Plain HTTP calls to a simulator, and a clock that only moves by hand."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from worker.simulator import Simulator


class Clock:
    """Unix time that moves when it is told to."""

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: CIMultiDictProxy[str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return dict(error)


class Http:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, with a body that is given as a value or as bytes."""
        sent = {} if body is None and data is None else {"Content-Type": "application/json"}
        if body is not None:
            data = json.dumps(body).encode()
        stream = None if data is None else io.BytesIO(data)
        async with self._session.request(method, url, data=stream, headers={**sent, **(headers or {})}) as response:
            return Reply(response.status, response.headers, await response.text())

    async def update(
        self,
        simulator: Simulator,
        completion_id: str = "chatcmpl-1",
        metadata: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        url = f"{simulator.base_url}/chat/completions/{completion_id}"
        return await self.call("POST", url, {"metadata": metadata}, headers=headers)

    async def get(
        self, simulator: Simulator, path: str = "/chatcmpl-1", *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return await self.call("GET", f"{simulator.base_url}/chat/completions{path}", headers=headers)

    async def control(self, simulator: Simulator, path: str, body: object = None) -> Reply:
        """A POST with a body, a GET without."""
        return await self.call("GET" if body is None else "POST", f"{simulator.control_url}{path}", body)
