"""The changelog keeps its form, and every file that names a version names its newest one."""

import re
import tomllib
from datetime import date
from importlib.metadata import version

from tests.docs.snippets import ROOT

PAGE = (ROOT / "CHANGELOG.md").read_text()
RELEASES = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", PAGE, re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_each_section_is_unreleased_or_a_dated_release_newest_first() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert headings == ["[Unreleased]", *(f"[{number}] - {day}" for number, day in RELEASES)]
    days = [date.fromisoformat(day) for _, day in RELEASES]
    numbers = [tuple(map(int, number.split("."))) for number, _ in RELEASES]
    assert days == sorted(days, reverse=True)
    assert numbers == sorted(set(numbers), reverse=True)


def test_each_entry_stands_under_a_kind_of_change_and_each_kind_once() -> None:
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        kinds = re.findall(r"^### (.+)$", body, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds], heading
        parts = re.split(r"^### .+$", body, flags=re.MULTILINE)
        assert parts[0].strip() == "", heading
        for part in parts[1:]:
            lines = part.strip().splitlines()
            assert lines, heading
            assert all(line.startswith(("- ", "  ")) for line in lines), heading


def test_the_newest_release_is_the_version_wherever_one_is_named() -> None:
    newest = RELEASES[0][0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == version("metasync") == newest
    pages = [*ROOT.glob("*.md"), ROOT / "compose.yaml", *ROOT.glob("deploy/**/*.yaml"), *ROOT.glob("docs/*.md")]
    named = {
        (str(page.relative_to(ROOT)), found)
        for page in pages
        if page.name != "performance.md"  # its figures were measured with the version that it names
        for found in re.findall(r"\bmetasync[: ](\d+\.\d+\.\d+)\b", page.read_text())
    }
    assert {"compose.yaml", "docs/deploying.md", "docs/doctor.md"} <= {page for page, _ in named}
    assert {(page, found) for page, found in named if found != newest} == set()
