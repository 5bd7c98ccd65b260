"""The content of a scrape."""

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.processes import Command, RunningSimulator, stopped, wait_for_event, write_changes
from tests.web.asking import serving, surface_of

_CHANGES = [
    {"completion_id": f"chatcmpl-{number:06}", "metadata": {"secretkey": "secretvalue"}, "mode": mode}
    for number in range(1, 31)
    for mode in ("replace", "merge")
]

_DEAD = ("metasync_queue_changes", (("state", "dead"),))


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_was_done_is_counted(command: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"count": 30})
    rejected = {"completion_id": "chatcmpl-000001", "metadata": {f"k{n}": "v" for n in range(16)}, "mode": "merge"}
    command.run("enqueue", write_changes(command.folder / "changes.jsonl", [*_CHANGES, rejected]))
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        wait_for_event(process, "change.dead_lettered")
        samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        # The queue's own figures are as old as asking for them costs.
        while (samples.get(("metasync_changes_total", _of("applied"))), samples.get(_DEAD)) != (60, 1):
            status, text = surface.ask("/metrics")
            samples = _samples(text) if status == 200 else {}
    assert samples["metasync_changes_total", _of("applied")] == 60
    assert samples["metasync_changes_total", _of("dead", "too_many_keys")] == 1
    updates = (("error", ""), ("operation", "update"), ("status", "2xx"))
    assert samples["metasync_requests_total", updates] == 30
    assert samples["metasync_request_duration_seconds_count", (("operation", "update"),)] == 30
    assert samples["metasync_request_changes_sum", ()] == 60
    assert samples["metasync_request_changes_bucket", (("le", "1.0"),)] == 0
    assert samples["metasync_request_changes_bucket", (("le", "2.0"),)] == 30
    assert samples["metasync_store_up", ()] == 1
    assert samples["metasync_store_duration_seconds_count", (("operation", "claim"),)] >= 1
    assert samples["metasync_gate_state", (("state", "open"),)] == 1
    for private in ("chatcmpl", "secretkey", "secretvalue"):
        assert private not in text


def test_what_never_happened_is_shown_as_nought(command: Command) -> None:
    with stopped(serving(command).start("run")) as process:
        samples = _samples(surface_of(process).ask("/metrics")[1])
    assert samples["metasync_changes_total", _of("dead", "attempts_exhausted")] == 0
    assert samples["metasync_leases_lost_total", ()] == 0


def _of(outcome: str, reason: str = "") -> tuple[tuple[str, str], ...]:
    return (("outcome", outcome), ("reason", reason))
