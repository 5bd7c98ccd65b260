"""The code snippets of the pages, by the name in the comment above each."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])


def snippet(page: str, name: str) -> str:
    """Give the block of a page that is marked as tested by this name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, name
    return found[1]
