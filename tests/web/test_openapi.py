"""The OpenAPI document is right: requests generated from it, good and bad, get documented answers."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.e2e.processes import Command
from tests.web.test_intake import TOKEN, an_intake
from worker.web.openapi import document

SCHEMA = schemathesis.openapi.from_dict(json.loads(document()))
load_all_checks()


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def as_lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Put the generated change on a line, once or twice."""
    return f"{json.dumps(value)}\n".encode() * (1 + len(str(value)) % 2)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with an_intake(Command(tmp_path_factory.mktemp("intake"), {})) as (door, _):
        yield f"http://127.0.0.1:{door.port}"


@SCHEMA.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_tells_of(case: "schemathesis.Case[Any]", address: str) -> None:
    # What the schema takes may still be refused: a key or a value with a NUL, a conflict, more pairs than there may be.
    # Other tests check requests without a token: so many tries would be a flood, and answered as one.
    case.call_and_validate(
        base_url=address,
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=[positive_data_acceptance, ignored_auth],
    )


def test_the_document_needs_no_token(address: str) -> None:
    with urlopen(f"{address}/openapi.json", timeout=30) as answer:
        assert answer.headers.get_content_type() == "application/json"
        assert json.load(answer) == json.loads(document())
