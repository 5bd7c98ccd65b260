import runpy
from pathlib import Path

from worker.cli.exits import Exit

ROOT = Path(__file__).parents[2]


def test_the_reference_says_what_the_code_does() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text() == page["render"](), "run `make docs`"
    assert set(page["EXITS"]) == set(Exit)
