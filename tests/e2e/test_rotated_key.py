"""A running worker uses a replaced mounted secret without a restart."""

from pathlib import Path

from tests.e2e.processes import Command, running_simulator, stopped, wait_for_event, write_changes


def test_work_goes_on_with_the_new_key(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "OPENAI_API_KEY").write_text("sk-old-0123456789\n")
    with running_simulator("--api-key", "sk-new-0123456789", "--completions", "3") as simulator:
        settings = {
            "METASYNC_SECRETS_DIR": str(secrets),
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_LOG_FORMAT": "json",
        }
        command = Command(tmp_path, settings)
        changes = [
            {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"grade": "A"}, "mode": "replace"}
            for number in range(1, 4)
        ]
        command.run("enqueue", write_changes(tmp_path / "changes.jsonl", changes))
        with stopped(command.start("run", "--drain", "--max-concurrency", "1")) as process:
            assert wait_for_event(process, "worker.halted")["reason"] == "unauthorized"
            (secrets / "OPENAI_API_KEY").write_text("sk-new-0123456789\n")
            assert wait_for_event(process, "worker.resumed")["reason"] == "unauthorized"
            _, rest = process.communicate(timeout=30)
            assert process.returncode == 0
        assert b"sk-new" not in rest
        assert simulator.ask("/counters")["counters"]["updates_applied"] == 3
        assert len(simulator.ask("/counters")["counters"]["requests"]["update"]) == 2  # 200s, and the 401 of before
