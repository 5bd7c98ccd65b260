"""A line stays one line and can be read again, for any JSON layout of the service."""

import csv
import io
import json
from typing import Any

import pytest

from worker.api.pages import read_fields, read_page, read_replies
from worker.sync.lines import CONVERSATION, Csv, JsonLines, OnTerminal

NAMES = ("usage", "model", CONVERSATION)
ITEM = {
    "id": "chatcmpl-1",
    "model": "gpt",
    "metadata": {"grade": "A\nB"},
    "usage": {"total": 1.5, "of": {"text": [1, 2]}},
    "choices": [{"message": {"role": "assistant", "content": "one\ntwo\r\u2028 "}}],
}


def _fields(item: bytes) -> dict[str, Any]:
    return {**read_fields(item, ("usage", "model")), CONVERSATION: read_replies(item)}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("text", [json.dumps(ITEM, indent=2), json.dumps(ITEM, indent="\t", ensure_ascii=False)])
def test_an_indented_answer_makes_one_line_that_says_the_same(text: str, end: str) -> None:
    page = read_page(f'{{"data": [{text}]}}'.replace("\n", end).encode())
    assert page is not None
    fields, metadata = _fields(page.items[0].raw), page.items[0].metadata or {}
    line = JsonLines().line("chatcmpl-1", metadata, fields)
    assert (line.count(b"\n"), line.count(b"\r")) == (1, 0)
    assert JsonLines().id_of(line) == "chatcmpl-1"
    found = json.loads(line)
    assert (found["metadata"], found["usage"], found["model"]) == (ITEM["metadata"], ITEM["usage"], "gpt")
    assert found[CONVERSATION] == [ITEM["choices"][0]["message"]]  # type: ignore[index]
    row = Csv(NAMES).line("chatcmpl-1", metadata, fields)
    assert (row.count(b"\n"), row.count(b"\r")) == (1, 0)
    cells = next(csv.reader(io.StringIO(row.decode())))
    assert (json.loads(cells[3]), cells[4], json.loads(cells[5])) == (ITEM["usage"], "gpt", found[CONVERSATION])


def test_text_with_an_end_of_line_stays_in_its_row() -> None:
    row = Csv(("model",)).line("chatcmpl-1", {}, {"model": "a\r\nb"})
    assert row.count(b"\n") == 1
    assert Csv(("model",)).id_of(row) == "chatcmpl-1"


def test_a_field_that_is_no_utf8_does_not_spoil_its_line() -> None:
    line = JsonLines().line("chatcmpl-1", {"a": "\u00e9"}, read_fields(b'{"usage": {"a": "\xff"}}', ("usage",)))
    assert json.loads(line) == {
        "completion_id": "chatcmpl-1",
        "metadata": {"a": "\u00e9"},
        "mode": "replace",
        "usage": {"a": "\ufffd"},
    }


@pytest.mark.parametrize("form", [JsonLines(), Csv(["model"])])
def test_a_line_for_a_terminal_cannot_control_it_and_says_the_same(form: JsonLines | Csv) -> None:
    metadata = {"k\x1b]52;c;aGk=\x07": "v\x9b31m\u202e\u2028\x7f é"}
    line = OnTerminal(form).line("chatcmpl-1", metadata, {"model": "\x1b[2J"}).decode()
    assert line[:-1].isprintable()
    assert line.endswith("\n")
    told = next(csv.reader([line]))[2] if isinstance(form, Csv) else json.dumps(json.loads(line)["metadata"])
    assert json.loads(told) == metadata
