"""Check the service: its clock, the key, the stored completions, and the announced limits."""

import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp

from config.settings import Settings
from worker.api import Answer, Client, Halt, Kind, Verdict
from worker.api.endpoint import Endpoint
from worker.api.headers import read_rate_limit
from worker.api.proxy import environment_proxy
from worker.cli.checkup.check import Check, failure, ok, warning
from worker.cli.output import counted

_FAR_SECONDS = 30.0
_HALTS: dict[Halt, str] = {
    Halt.UNAUTHORIZED: "is OPENAI_API_KEY the right project's, not revoked, and may it read stored completions?",
    Halt.FORBIDDEN: "allow the key to read and write stored completions; a firewall on the way may also answer this",
    Halt.QUOTA: "top up the account, or raise its budget",
    Halt.WRONG_URL: "OPENAI_BASE_URL must end before /chat/completions, as https://api.openai.com/v1 does",
    Halt.PROXY: "the proxy requires a login, or blocks this machine",
}


async def check_service(settings: Settings, key: str, completion_id: str | None) -> AsyncIterator[Check]:
    """List one completion, and read one: the named one, or the listed one."""
    heard = _Heard()
    proxy = environment_proxy(Endpoint.parse(settings.openai_base_url)) if settings.trust_env else None
    async with (
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[heard.tracing()], proxy=proxy
        ) as session,
        Client(
            base_url=settings.openai_base_url,
            api_key=key,
            organization=settings.openai_org_id,
            project=settings.openai_project_id,
            auth=settings.auth,
            session=session,
        ) as client,
    ):
        listed = await client.list(limit=1, order="desc", timeout_seconds=settings.request_timeout)
        if heard.headers:
            yield _clock(heard)
        yield (key_check := _key(listed))
        limits = _limits(heard.headers)
        if key_check.halts:
            return
        found = listed.page.data if listed.page is not None else None
        newest = completion_id or (found[0].id if found else None)
        if newest is None:
            if found is not None:
                yield warning("completions", "none is listed", _NONE_LISTED)
        else:
            yield _reading(newest, await client.get(newest, timeout_seconds=settings.request_timeout))
    if heard.headers:
        yield limits


_NONE_LISTED = "only completions made with `store: true` in 30 days can be updated; or is it another project's key?"
_ABSENT = "a new one takes some seconds to appear, an old one expires after 30 days; or it is another project's key"


class _Heard:
    """The headers of the last answer, and its times."""

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}
        self.asked_at = self.answered_at = 0.0

    def tracing(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._began)
        config.on_request_end.append(self._ended)
        return config

    async def _began(self, *_: Any) -> None:  # noqa: ANN401 -- aiohttp's arguments
        self.asked_at = time.time()

    async def _ended(self, _: aiohttp.ClientSession, __: SimpleNamespace, ended: aiohttp.TraceRequestEndParams) -> None:
        self.headers, self.answered_at = ended.response.headers, time.time()


def _clock(heard: _Heard) -> Check:
    try:
        said = parsedate_to_datetime(heard.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return ok("clock", "the service does not tell its time")
    # The header has whole seconds, and was set at some time between request and answer.
    ahead = said - heard.answered_at if said > heard.answered_at else min(said + 1.0 - heard.asked_at, 0.0)
    if abs(ahead) <= _FAR_SECONDS:
        return ok("clock", f"within {_FAR_SECONDS:g} s of the service's")
    return warning(
        "clock",
        f"the service's is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} ours",
        "let NTP set this machine's clock: certificates and waits until a date depend on it",
    )


def _key(listed: Answer) -> Check:
    verdict = listed.verdict
    if verdict.kind is not Kind.OK:
        return refused("key", verdict)
    if listed.page is None or listed.page.data is None:
        return failure("key", "the answer to the list call is no list", _HALTS[Halt.WRONG_URL])
    request_id = f", {verdict.request_id}" if verdict.request_id else ""
    return ok("key", f"the list call was answered with {verdict.status} in {listed.duration_ms:.0f} ms{request_id}")


def refused(name: str, verdict: Verdict) -> Check:
    """Return what a failed request means for a run."""
    detail = verdict.error or verdict.kind.value
    match verdict.kind:
        case Kind.HALTED if verdict.halt is not None:
            return failure(name, detail, _HALTS[verdict.halt], halts=True)
        case Kind.THROTTLED:
            return warning(name, detail, "others use up the rate: a worker waits, and continues")
        case Kind.NOT_FOUND:
            return failure(name, detail, _HALTS[Halt.WRONG_URL])
        case _:
            return failure(name, detail, "try again; if it persists, the service or a gateway before it has trouble")


def _reading(completion_id: str, answer: Answer) -> Check:
    verdict = answer.verdict
    if verdict.kind is Kind.NOT_FOUND:
        return failure("completions", f"{completion_id}: {verdict.error}", _ABSENT)
    if verdict.kind is not Kind.OK:
        return refused("completions", verdict)
    if answer.metadata is None:
        advice = "merges halt with `metadata_hidden`: metasync never overwrites metadata that it cannot see"
        return failure("completions", f"{completion_id} can be read, but its metadata is not shown", advice)
    if not answer.whole:
        advice = "merges of it become dead letters (`unreadable`); a `replace` goes through"
        return warning("completions", f"{completion_id} has metadata that is no text", advice)
    count = len(answer.metadata)
    keys = counted(count, "key") if count else "no metadata"
    return ok("completions", f"{completion_id} can be read, and has {keys}; whether it may be updated was not tried")


def _limits(headers: Mapping[str, str]) -> Check:
    announced = read_rate_limit(headers)
    if announced is None:
        return ok("limits", "none announced: a worker finds the limit from refusals")
    told = [
        f"{announced.limit_requests:,} requests" if announced.limit_requests is not None else "",
        f"{announced.remaining_requests:,} left" if announced.remaining_requests is not None else "",
        f"all of them again in {announced.reset_seconds:g} s" if announced.reset_seconds is not None else "",
    ]
    return ok("limits", f"announced: {', '.join(filter(None, told))}")
