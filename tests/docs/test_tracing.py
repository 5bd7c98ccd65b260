import re
from pathlib import Path

from worker.cli.tracing import FLUSH_SECONDS
from worker.tracing import CLAIM_ATTRIBUTES, CLAIM_SPAN, REQUEST_ATTRIBUTES, URL_TEMPLATE

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()


def test_the_table_lists_every_span_and_attribute() -> None:
    rows = re.findall(r"^\| `?(\w+)`? \| `([\w.]+)` \|", PAGE, re.MULTILINE)
    claims = [(CLAIM_SPAN, name) for name in CLAIM_ATTRIBUTES]
    assert rows == claims + [("request", name) for name in REQUEST_ATTRIBUTES]


def test_the_page_names_the_span_and_the_time_to_flush() -> None:
    assert f"`POST {URL_TEMPLATE}`" in PAGE
    assert FLUSH_SECONDS == 3
