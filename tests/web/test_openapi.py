"""The OpenAPI document is right: requests generated from it, good and bad, get documented answers."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, settings

from tests.e2e.processes import Command
from tests.web.test_intake import TOKEN, an_intake
from worker.web.openapi import document


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with an_intake(Command(tmp_path_factory.mktemp("intake"), {})) as (door, _):
        yield f"http://127.0.0.1:{door.port}"


def test_every_answer_is_one_that_the_document_tells_of(address: str, subtests: pytest.Subtests) -> None:
    """Schemathesis thinks of its requests here: every worker collects the tests, and one runs this."""
    import schemathesis  # noqa: PLC0415
    from schemathesis.checks import load_all_checks  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415
    from schemathesis.pytest.lazy import get_all_tests  # noqa: PLC0415
    from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance  # noqa: PLC0415

    load_all_checks()

    @schemathesis.serializer("application/x-ndjson", "application/jsonl")
    def as_lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
        """Put the generated change on a line, once or twice."""
        return f"{json.dumps(value)}\n".encode() * (1 + len(str(value)) % 2)

    # What the schema takes may still be refused: a key or a value with a NUL, a conflict, more pairs than there may be.
    # Other tests check requests without a token: so many tries would be a flood, and answered as one.
    def call(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(
            base_url=address,
            headers={"Authorization": f"Bearer {TOKEN}"},
            excluded_checks=[positive_data_acceptance, ignored_auth],
        )

    described = json.loads(document())
    few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    schema = schemathesis.openapi.from_dict(described)
    tried = set()
    for each in get_all_tests(schema=schema, test_func=call, settings=few, given_kwargs=None):
        assert isinstance(each, Ok), each
        operation, test = each.ok()
        with subtests.test(operation.label):
            test()
        tried.add(operation.path)
    assert tried == described["paths"].keys()


def test_the_document_needs_no_token(address: str) -> None:
    with urlopen(f"{address}/openapi.json", timeout=30) as answer:
        assert answer.headers.get_content_type() == "application/json"
        assert json.load(answer) == json.loads(document())
