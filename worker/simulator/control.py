"""The control endpoints, for other processes; lag, limits and faults do not apply to them."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, get_type_hints
from urllib.parse import unquote

import msgspec
from aiohttp import web

from worker.simulator.answers import JSON, Answer, encode
from worker.simulator.kinds import Fault, FaultKind
from worker.simulator.options import Options, RateLimit
from worker.simulator.service import Switches

if TYPE_CHECKING:
    from worker.simulator.server import Simulator

_COMPLETIONS_PER_CHUNK = 1_000
_FIXED_OPTIONS = frozenset({"host", "port", "completions"})
_OPTION_TYPES = get_type_hints(Options)

INDEX = {
    "GET /counters": "counters and violations",
    "POST /reset": "start counters, violations and histories anew",
    "POST /seed": "store completions: ids, or count and prefix, all with metadata; or completions (id to metadata); "
    "lag_seconds",
    "GET /switches, POST /switches": "bad_key, missing_scope, forbidden, quota_exhausted: true or false; "
    "outage: overloaded, dropped or null",
    "GET /options, POST /options": "all other options; a POST names those to change",
    "POST /fail-next": "faults: the kinds of fault of the next requests, one each, or the answers to them "
    "(status, headers, content_type, body in base64)",
    "GET /metadata": "the metadata of every completion, by id",
    "GET /metadata/ID": "the metadata of one",
    "GET /history/ID": "the maps that took effect on one, oldest first",
}


class SeedOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /seed``."""

    ids: list[str] = []
    count: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 0
    prefix: str = "chatcmpl-"
    metadata: dict[str, str] = {}
    completions: dict[str, dict[str, str]] = {}
    lag_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /fail-next``."""

    faults: list[FaultKind | Answer]


class Control:
    """Answers the control endpoints of one simulator."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self._actions: dict[tuple[str, str], Callable[[bytes], object]] = {
            ("GET", ""): lambda _: INDEX,
            ("GET", "/counters"): lambda _: self._counters(),
            ("POST", "/reset"): lambda _: self._reset(),
            ("POST", "/seed"): self._seed,
            ("GET", "/switches"): lambda _: simulator.switches,
            ("POST", "/switches"): self._switch,
            ("GET", "/options"): lambda _: self._shown_options(),
            ("POST", "/options"): self._order,
            ("POST", "/fail-next"): self._fail_next,
        }

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer one request.

        Args:
            path: what follows the control URL, without the query.
        """
        path = path.rstrip("/")
        if (request.method, path) == ("GET", "/metadata"):
            return await self._dump(request)
        try:
            value = self._value(request.method, path, await request.read())
        except KeyError as error:
            return _answer(404, {"error": f"unknown: {error.args[0]}"})
        except (ValueError, RecursionError) as error:
            return _answer(400, {"error": str(error)})
        return _answer(200, value)

    def _value(self, method: str, path: str, body: bytes) -> object:
        action = self._actions.get((method, path))
        if action is not None:
            return action(body)
        if method == "GET" and path.startswith("/metadata/"):
            return self._simulator.metadata(unquote(path.removeprefix("/metadata/")))
        if method == "GET" and path.startswith("/history/"):
            return self._simulator.history(unquote(path.removeprefix("/history/")))
        raise KeyError(f"{method} {path}")

    def _counters(self) -> dict[str, object]:
        simulator = self._simulator
        return {
            "counters": simulator.counters.as_dict(),
            "violations": simulator.violations,
            "read_violations": simulator.read_violations,
        }

    def _reset(self) -> dict[str, object]:
        self._simulator.reset()
        return self._counters()

    def _seed(self, body: bytes) -> dict[str, int]:
        order = msgspec.json.decode(body, type=SeedOrder)
        simulator = self._simulator
        numbered = (f"{order.prefix}{number:06d}" for number in range(1, order.count + 1))
        simulator.seed_completions(order.ids, order.metadata, order.lag_seconds)
        simulator.seed_completions(numbered, order.metadata, order.lag_seconds)
        for completion_id, metadata in order.completions.items():
            simulator.seed(completion_id, metadata, order.lag_seconds)
        return {"seeded": len(order.ids) + order.count + len(order.completions)}

    def _switch(self, body: bytes) -> Switches:
        patch = msgspec.json.decode(body, type=dict[str, object])
        switches = self._simulator.switches
        _refuse_unknown("switch", patch, Switches)
        changed = msgspec.convert({**msgspec.to_builtins(switches), **patch}, Switches)
        for name in patch:
            setattr(switches, name, getattr(changed, name))
        return switches

    def _shown_options(self) -> Options:
        options = self._simulator.options
        return options if options.api_key is None else replace(options, api_key="***")

    def _order(self, body: bytes) -> Options:
        patch = msgspec.json.decode(body, type=dict[str, object])
        self._simulator.options = patched(self._simulator.options, patch)
        return self._shown_options()

    def _fail_next(self, body: bytes) -> dict[str, int]:
        order = msgspec.json.decode(body, type=FaultOrder)
        self._simulator.fail_next(*order.faults)
        return {"faults": len(order.faults)}

    async def _dump(self, request: web.BaseRequest) -> web.StreamResponse:
        """One JSON object, written in parts."""
        response = web.StreamResponse(headers={"Content-Type": JSON})
        await response.prepare(request)
        items = list(self._simulator.all_metadata().items())
        await response.write(b"{")
        for start in range(0, len(items), _COMPLETIONS_PER_CHUNK):
            members = encode(dict(items[start : start + _COMPLETIONS_PER_CHUNK]))[1:-1]
            await response.write(b"," + members if start else members)
        await response.write(b"}")
        await response.write_eof()
        return response


def patched(options: Options, patch: dict[str, object]) -> Options:
    """Return the options with some of them changed.

    Args:
        patch: plain values by name; ``limit`` and ``faults`` are replaced as a whole, bytes are base64.

    Raises:
        ValueError: a name is unknown or fixed at run time, or a value is invalid.
    """
    _refuse_unknown("option", patch, Options)
    for name in _FIXED_OPTIONS & patch.keys():
        raise ValueError(f"option {name!r} cannot be changed at run time")
    _refuse_unknown("field of limit", patch.get("limit"), RateLimit)
    faults = patch.get("faults")
    for fault in faults if isinstance(faults, list) else ():
        _refuse_unknown("field of a fault", fault, Fault)
    changes = {}
    for name, value in patch.items():
        try:
            changes[name] = msgspec.convert(value, _OPTION_TYPES[name])
        except msgspec.ValidationError as error:
            raise ValueError(f"option {name!r}: {error}") from None
    return replace(options, **changes)


def _refuse_unknown(what: str, given: object, kind: type[Options | RateLimit | Fault | Switches]) -> None:
    """Raise ValueError if the object has a name that the dataclass lacks."""
    known = {field.name for field in fields(kind)}
    for name in given if isinstance(given, dict) else ():
        if name not in known:
            raise ValueError(f"unknown {what}: {name!r}; there are {', '.join(sorted(known))}")


def _answer(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=encode(value), content_type=JSON)
