"""The code of docs/python.md works when pasted, and its tables are complete."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import metasync
from tests.docs.snippets import ROOT, snippet

PAGE = "docs/python.md"
PRINTED = {
    "async": "1 0 ()\n",
    "sync": "1 1\n",
    "iterables": "",
    "batches": "redact-17 1 1 0 0\ngrades-monday 1 1 0 0\n1 0\n",
    "errors": "fix the change: the value of metadata key 'grade' must be a string, not a number"
    " (position 0 of what was put)\n",
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_shown_commands_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "grades.csv").write_text("id,grade\nchatcmpl-000001,A\nchatcmpl-000002,B\n")
    done = subprocess.run(
        [sys.executable, "-c", snippet(PAGE, name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (PRINTED[name], 0), done.stderr


def test_every_snippet_is_tested_and_every_exception_has_its_line() -> None:
    text = (ROOT / PAGE).read_text()
    assert set(re.findall(r"<!-- tested: (\w+) -->", text)) == set(PRINTED)
    assert text.count("```python") == len(PRINTED)
    exported = [getattr(metasync, name) for name in metasync.__all__]
    raised = {each.__name__ for each in exported if isinstance(each, type) and issubclass(each, Exception)}
    assert raised <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
