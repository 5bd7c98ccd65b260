"""The write probe: find out how updates behave, on a completion that the user names, and undo all changes.

An update that names every key writes exactly that map, under either semantics. So the original can always be restored
as long as no key is added: the probe adds none, and only changes existing values. Each update carries a unique value. A
read that shows it was made after the update, for any read lag. Only after such a read does the probe check what
the update did to the other keys.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import Signals

from worker.api import Kind
from worker.changes.change import MAX_PAIRS
from worker.cli import signals
from worker.cli.checkup.findings import Findings, OfEmpty, OfNull
from worker.cli.checkup.keeping import CannotKeep, Kept
from worker.cli.checkup.restoring import Restoring
from worker.cli.checkup.writing import Desk, ProbeClient, ProbeFailed

_LOOK_SECONDS = 0.25
_SAME_READS = 3  # in a row: replicas may answer in turn, with different lags
_LEAST_SECONDS = 2.0


class WriteProbe:
    """Finds out how updates behave, on one completion.

    Args:
        patience_seconds: how long reads may show the state before an update.
        tell: shows progress to the user.
        folder: where the original metadata is saved meanwhile.

    After a failure, `halts` says whether it would halt a worker. `signal` is the signal that ended the probe, if any;
    `wrote` says whether an update may have had an effect.
    """

    def __init__(
        self,
        client: ProbeClient,
        completion_id: str,
        *,
        timeout_seconds: float,
        patience_seconds: float,
        tell: Callable[[str], None],
        folder: Path = Path(),
    ) -> None:
        self._desk = Desk(client, completion_id, timeout_seconds)
        self._completion_id = completion_id
        self._patience_seconds = max(patience_seconds, _LEAST_SECONDS)
        self._tell = tell
        self._folder = folder
        self._nonce = secrets.token_hex(4)
        self._step = 0
        self._before: dict[str, str] = {}
        self.findings = Findings()
        self.halts = False
        self.signal: Signals | None = None
        self.wrote = False

    async def run(self) -> None:
        """Run the probe; the result is in `findings`."""
        try:
            self._before = await self._stable()
            kept = Kept(self._completion_id, self._before, self._folder)
        except (ProbeFailed, CannotKeep) as error:
            self.findings.error = str(error)
            self.findings.restored = True
            self.halts = isinstance(error, ProbeFailed) and error.halts
            return
        self.findings.kept_in = str(kept.path)
        self._tell(f"the original metadata is saved in {kept.path} until it is restored")
        restoring = Restoring(self._desk, self._before, self._tell)
        measuring = asyncio.create_task(self._measure())

        def stop(number: Signals) -> None:
            if self.signal is None:
                self.signal = number
                self._tell(f"{number.name}: restoring the original metadata, which is saved in {kept.path}")
                measuring.cancel()
            else:
                restoring.hurry()

        with signals.handled(stop):
            try:
                await measuring
            except asyncio.CancelledError:
                self.findings.error = f"interrupted by {self.signal.name if self.signal else 'cancellation'}"
            except ProbeFailed as error:
                self.findings.error, self.halts = str(error), error.halts
            except Exception as error:  # noqa: BLE001 -- any failure must still restore the metadata
                self.findings.error = f"internal error: {type(error).__name__}"
            await self._desk.settled()
            self.wrote = self._desk.may_have_written
            self.findings.restored = not self.wrote or await restoring.run(
                self._settle_seconds(), self._patience_seconds
            )
        if self.findings.restored:
            kept.remove()
            self.findings.kept_in = None
        else:
            self._tell(
                f"{self._completion_id} may not have its original metadata, which was (your values):\n"
                f"{kept.text}\n"
                f"It is saved in {kept.path}: `metasync apply {kept.path}` restores it."
            )

    def _settle_seconds(self) -> float:
        """The read lag, as far as it is known."""
        lag_seconds = self.findings.read_lag_seconds
        if lag_seconds is None or self._desk.is_unsure:
            return self._patience_seconds
        return max(2 * lag_seconds, _LEAST_SECONDS)

    async def _stable(self) -> dict[str, str]:
        """Return the metadata once it is certainly current and not written by others.

        Raises:
            ProbeFailed: it changes, or this completion does not fit a probe.
        """
        before = await self._desk.read()
        if not 2 <= len(before) <= MAX_PAIRS:  # noqa: PLR2004 -- one to change, one to omit
            raise ProbeFailed(
                f"it has {len(before)} metadata keys: a completion with 2 to {MAX_PAIRS} is needed, since keys that a "
                "probe adds could not be removed everywhere"
            )
        self._tell(f"reading for {self._patience_seconds:g} s to see whether its metadata changes (METASYNC_READ_LAG)")
        until = time.monotonic() + self._patience_seconds
        while time.monotonic() < until:
            await asyncio.sleep(min(1.0, self._patience_seconds / 10))
            if await self._desk.read() != before:
                raise ProbeFailed(
                    "its metadata changes: another program writes to it, or did so just now; choose another completion"
                )
        return before

    async def _measure(self) -> None:
        changed, left_out = sorted(self._before)[:2]
        findings = self.findings
        self._tell("updating it without one of its keys")
        without = {key: value for key, value in self._before.items() if key != left_out}
        shown = await self._marked(without, changed, must_do=True)
        findings.semantics = None if shown is None else "merge" if left_out in shown else "replace"
        await self._marked(self._before, changed, must_do=True)
        self._tell("updating it with null as a value")
        findings.null_value = await self._null_value(changed, left_out)
        await self._marked(self._before, changed, must_do=True)
        self._tell("updating it with an empty map")
        findings.empty_metadata = await self._emptied({}, changed)
        await self._marked(self._before, changed, must_do=True)
        self._tell("updating it with null for a map")
        findings.null_metadata = await self._emptied(None, changed)

    async def _marked(
        self, metadata: Mapping[str, str | None], changed: str, *, must_do: bool
    ) -> Mapping[str, str] | None:
        """Update with the map, with a unique value for the key; return what reads show once they show that value.

        Args:
            must_do: whether it is an ordinary update, which must work.

        Returns:
            None if it was never shown, or is shown with a value that is no text.

        Raises:
            ProbeFailed: an ordinary update is rejected, or never shown.
        """
        self._step += 1
        marker = f"metasync probe {self._nonce}-{self._step}"
        answer = await self._desk.write({**metadata, changed: marker})
        if answer.verdict.kind is Kind.REJECTED:
            if must_do:
                raise ProbeFailed(f"an update was rejected: {answer.verdict.error}")
            raise _Rejected
        if must_do:
            shows = answer.metadata
            self.findings.answer = "none" if shows is None else "new" if shows.get(changed) == marker else "old"
        shown, lag_seconds = await self._seen(lambda found: found.get(changed) == marker, self._patience_seconds)
        if shown is None and must_do:
            raise ProbeFailed(
                f"no read has shown an update within {self._patience_seconds:g} s: the read lag is longer than "
                "METASYNC_READ_LAG says, or updates have no effect"
            )
        if must_do:
            self.findings.read_lag_seconds = round(max(self.findings.read_lag_seconds or 0.0, lag_seconds), 2)
        return shown

    async def _null_value(self, changed: str, nulled: str) -> OfNull:
        try:
            shown = await self._marked({**self._before, nulled: None}, changed, must_do=False)
        except _Rejected:
            return "rejected"
        except ProbeFailed as error:
            if error.halts:
                raise
            return "fails"  # if the service itself is down, the next update fails, too
        if shown is None:
            return "ignored" if await self._desk.shown() is not None else "other"
        if nulled not in shown:
            return "removes"
        return "keeps" if shown[nulled] == self._before[nulled] else "other"

    async def _emptied(self, metadata: Mapping[str, str] | None, changed: str) -> OfEmpty:
        """Update without any pair. It has no unique value, so wait as long as the slowest update took."""
        try:
            answer = await self._desk.write(metadata)
        except ProbeFailed as error:
            if error.halts:
                raise
            return "fails"
        if answer.verdict.kind is Kind.REJECTED:
            return "rejected"
        lag_seconds = self.findings.read_lag_seconds or 0.0
        shown, _ = await self._seen(lambda found: changed not in found, max(3 * lag_seconds, _LEAST_SECONDS))
        if shown is None:
            return "keeps" if await self._desk.shown() is not None else "other"
        return "other" if shown else "clears"

    async def _seen(
        self, holds: Callable[[Mapping[str, str]], bool], patience_seconds: float
    ) -> tuple[Mapping[str, str] | None, float]:
        """Read until several reads in a row satisfy the condition; return the last one, and when the first came."""
        began = time.monotonic()
        first_at, in_a_row = 0.0, 0
        while True:
            asked_at = time.monotonic() - began
            shown = await self._desk.shown()
            if shown is not None and holds(shown):
                first_at = first_at if in_a_row else asked_at
                in_a_row += 1
                if in_a_row == _SAME_READS:
                    return shown, first_at
            else:
                in_a_row = 0
                if asked_at > patience_seconds:
                    return None, asked_at
            await asyncio.sleep(_LOOK_SECONDS)


class _Rejected(Exception):
    """The service rejects such an update."""
