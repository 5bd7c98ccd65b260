"""`metasync pull` as a process: its lines, messages and exit codes."""

import csv
import gzip
import json
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos.disk import Disk
from tests.cli.inside import run
from tests.e2e.processes import KEY, METASYNC, Command, RunningSimulator, running_simulator, stopped, write_changes

COUNT = 730
IDS = [f"chatcmpl-{number:06d}" for number in range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def service() -> Iterator[RunningSimulator]:
    with running_simulator("--completions", str(COUNT)) as running:
        yield running


@pytest.fixture
def pulling(tmp_path: Path, service: RunningSimulator) -> Command:
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": service.base_url, "METASYNC_LOG_FORMAT": "json"}
    return Command(tmp_path, settings)


def _ids(text: str) -> list[str]:
    return [json.loads(line)["completion_id"] for line in text.splitlines()]


def test_lines_go_to_standard_output_and_the_account_does_not(pulling: Command) -> None:
    done = pulling.run("pull")
    assert (done.returncode, done.stderr) == (0, "730 written, 8 requests\n")
    assert _ids(done.stdout) == IDS
    assert json.loads(done.stdout.splitlines()[0]) == {"completion_id": IDS[0], "metadata": {}, "mode": "replace"}
    assert pulling.run("pull", "-o", "/dev/stdout").stdout == done.stdout


def test_a_file_has_the_form_of_its_name_and_is_private(pulling: Command, tmp_path: Path) -> None:
    done = pulling.run("pull", "-o", "x.csv.gz", "--limit", "5", "--with", "model,created,usage", "--json")
    assert (json.loads(done.stdout)["written"], done.returncode, done.stderr) == (5, 0, "")
    rows = list(csv.DictReader(gzip.decompress((tmp_path / "x.csv.gz").read_bytes()).decode().splitlines()))
    assert [row["completion_id"] for row in rows] == IDS[:5]
    assert {(row["mode"], row["metadata"], row["model"]) for row in rows} == {("replace", "{}", "gpt-4o-2024-08-06")}
    assert json.loads(rows[0]["usage"])["total_tokens"] > 0
    assert stat.S_IMODE((tmp_path / "x.csv.gz").stat().st_mode) == 0o600
    refused = pulling.run("enqueue", "x.csv.gz", "--check", "--mode", "replace", "--ignore-unknown")
    assert "5 would be added, 0 known already, 0 refused" in refused.stdout


def test_the_conversation_is_written_only_where_it_is_asked_for(pulling: Command) -> None:
    everything = "model,created,request_id,service_tier,system_fingerprint,seed,temperature,top_p,usage"
    assert "circuits" not in pulling.run("pull", "--limit", "2", "--with", everything).stdout
    asked = pulling.run("pull", "--limit", "2", "--with", "messages").stdout
    messages = json.loads(asked.splitlines()[0])["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert all("circuits" in message["content"] for message in messages[1:])


def test_what_is_not_there_is_named_and_counted(pulling: Command, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text(f"{IDS[3]}\n\nchatcmpl-none\n../files\n{IDS[1]}\n{IDS[3]}\n")
    done = pulling.run("pull", "--ids", "ids")
    assert done.returncode == 3
    assert _ids(done.stdout) == [IDS[3], IDS[1]]
    assert "chatcmpl-none: not found" in done.stderr
    assert "ids:4: '../files' is not the id of a completion" in done.stderr
    assert "2 written, 1 not found, 1 line refused, 3 requests" in done.stderr
    none = pulling.run("pull", "--ids", "-", stdin=b"chatcmpl-none\n")
    assert (none.returncode, "the key of another project?" in none.stderr) == (3, True)


@pytest.mark.parametrize("switches", [{"bad_key": True}, {"outage": "overloaded"}])
def test_a_halt_and_an_outage_end_it_with_the_codes_of_a_drain(tmp_path: Path, switches: dict[str, object]) -> None:
    with running_simulator("--completions", "3") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        simulator.ask("/switches", switches)
        done = command.run("pull", "-o", "x.jsonl", "--halt-timeout", "200ms", "--json")
    code = 77 if "bad_key" in switches else 75
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (code, code)
    assert "worker.halted" in done.stderr
    assert "not finished (" in done.stderr


@pytest.mark.parametrize("by", ["list", "ids"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv.gz"])
def test_killed_at_any_moment_it_is_gone_on_with_and_has_each_line_once(tmp_path: Path, by: str, name: str) -> None:
    dice = Random(f"{by} {name}")
    with running_simulator("--completions", str(COUNT), "--latency", "20ms") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_MAX_CONCURRENCY": "4"}
        command = Command(tmp_path, settings)
        words = ["pull", "-o", name]
        if by == "ids":
            (tmp_path / "ids").write_text("\n".join(IDS))
            words += ["--ids", "ids"]
        for _ in range(4):
            before = simulator.requests()
            with stopped(command.start(*words, *(["--resume"] if (tmp_path / name).exists() else []))) as process:
                wanted = before + (dice.randrange(1, 3) if by == "list" else dice.randrange(1, 200))
                while simulator.requests() < wanted and process.poll() is None:
                    time.sleep(0.001)
                process.send_signal(signal.SIGKILL)
                process.wait()
            assert (tmp_path / name).exists()
        done = command.run(*words, "--resume")
        assert done.returncode == 0, done.stderr
    data = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(data) if name.endswith("gz") else data).decode().splitlines()
    found = _ids("\n".join(lines)) if name == "x.jsonl" else [line.split(",")[0] for line in lines[1:]]
    assert found == IDS if by == "list" else sorted(found) == IDS


def test_a_signal_leaves_whole_lines_and_says_how_many(tmp_path: Path) -> None:
    with running_simulator("--completions", str(COUNT), "--latency", "100ms") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        with stopped(command.start("pull", "-o", "x.jsonl")) as process:
            while not (tmp_path / "x.jsonl").exists() or not (tmp_path / "x.jsonl").read_text():
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
    lines = (tmp_path / "x.jsonl").read_text()
    assert process.returncode == 75
    assert lines.endswith("\n")
    assert f"interrupted: x.jsonl has {len(_ids(lines))} line" in told.decode()


def test_a_closed_pipe_ends_it_with_a_sentence_since_what_was_read_is_not_whole(pulling: Command) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{METASYNC} pull | true"],
        cwd=pulling.folder,
        env=pulling.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "metasync: standard output was closed before all was written\n")


def test_a_full_temporary_folder_is_reported(pulling: Command, tmp_path: Path) -> None:
    write_changes(tmp_path / "many.jsonl", [{"completion_id": f"c-{n:0240d}", "metadata": {}} for n in range(50_000)])
    with Disk.mounted(1) as disk:
        command = Command(tmp_path, {**pulling.settings, "TMPDIR": str(disk.path), "METASYNC_QUEUE_URL": "memory:"})
        for words in (("pull", "--of", "many.jsonl"), ("diff", "many.jsonl")):
            done = command.run(*words)
            assert done.returncode == 75, done.stderr
            assert f"the temporary file cannot be written in {disk.path}" in done.stderr
            assert "Traceback" not in done.stderr


def test_only_a_resumable_pull_offers_resume(tmp_path: Path) -> None:
    with running_simulator("--completions", "3") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        done = command.run("pull", "-o", "/dev/full")
    assert done.returncode == 75
    assert "/dev/full cannot be written" in done.stderr
    assert "--resume" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--of", "x.jsonl", "--model", "gpt"), "--model: filters the list"),
        (("--ids", "x", "--metadata", "a=b"), "--metadata: filters the list"),
        (("--ids", "x", "--limit", "3"), "--limit: filters the list"),
        (("--of", "x.jsonl", "--ids", "x"), "use one of them"),
        (("--of", "x.jsonl", "--order", "desc"), "--order: sorts the list"),
        (("--resume",), "needs the file to continue"),
        (("--resume", "--overwrite", "-o", "x.jsonl"), "that --overwrite replaces"),
        (("--json",), "needs --output FILE"),
        (("--with", "choices"), "'choices' is not one of the fields"),
        (("--metadata", "a=1", "--metadata", "a=2"), "two values of one key"),
        (("--metadata", "grade"), "must be a key, '=' and a value"),
        (("--limit", "0"), "must be a whole number above 0"),
        (("--created-after", "yesterday"), "must be a date"),
        (("--created-after", "2026-11-02", "--created-before", "2026-11-01"), "no completion fits both"),
        (("-o", "x.txt"), "the name must end in"),
        (("-o", "."), "this is a directory"),
    ],
)
def test_contradictory_flags_are_refused_in_a_sentence(
    words: tuple[str, ...],
    sentence: str,
    empty_folder: Path,  # noqa: ARG001 -- nothing is there
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert run(["pull", *words]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert sentence in last
