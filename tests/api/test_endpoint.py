"""Base URLs, ids and keys are checked before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from tests.api.properties import unhurried
from worker.api import Client
from worker.api.endpoint import Auth, Endpoint
from worker.changes import InvalidChange, MetadataChange


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions/chatcmpl-1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions/chatcmpl-1"),
        ("https://api.openai.com/v1//", "https://api.openai.com/v1/chat/completions/chatcmpl-1"),
        ("https://gateway.example.org", "https://gateway.example.org/chat/completions/chatcmpl-1"),
        (
            "https://gateway.example.org:8443/a%20b",
            "https://gateway.example.org:8443/a%20b/chat/completions/chatcmpl-1",
        ),
        ("https://R.openai.azure.com/openai/v1", "https://r.openai.azure.com/openai/v1/chat/completions/chatcmpl-1"),
        (
            "https://r.openai.azure.com/openai?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/chat/completions/chatcmpl-1?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai/?api-version=2024-10-21&x=%26",
            "https://r.openai.azure.com/openai/chat/completions/chatcmpl-1?api-version=2024-10-21&x=%26",
        ),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions/chatcmpl-1"),
        ("http://127.8.9.10/v1", "http://127.8.9.10/v1/chat/completions/chatcmpl-1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions/chatcmpl-1"),
    ],
)
def test_the_url_of_a_completion(base_url: str, url: str) -> None:
    endpoint = Endpoint.parse(base_url)
    assert f"{endpoint.origin}{endpoint.completion_target('chatcmpl-1')}" == url


@pytest.mark.parametrize(
    ("base_url", "complaint"),
    [
        ("", "URL"),
        ("api.openai.com/v1", "URL"),
        ("/v1", "URL"),
        ("ftp://api.openai.com/v1", "https://"),
        ("https://", "URL"),
        ("https:///v1", "URL"),
        ("https://api.openai.com:port/v1", "URL"),
        ("https://api.openai.com/v1#part", "fragment"),
        ("https://jane:hunter2@api.openai.com/v1", "user"),
        ("https://:hunter2@api.openai.com/v1", "user"),
        ("https://jane@api.openai.com/v1", "user"),
        ("http://api.openai.com/v1", "plain http"),
        ("http://10.0.0.1/v1", "plain http"),
        ("http://localhost.example.org/v1", "plain http"),
        ("http://127.0.0.1.example.org/v1", "plain http"),
        ("http://[::2]/v1", "plain http"),
    ],
)
def test_an_unsafe_or_malformed_base_url_is_refused(base_url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        Client(base_url=base_url, api_key="sk-test")
    assert "hunter2" not in str(refused.value)


ODD_IDS = [
    "",
    ".",
    "..",
    "a/../b",
    "../models",
    "a/b",
    "a?b",
    "a#b",
    "%2e%2e",
    "a%2fb",
    "a b",
    "a\n",
    "é",
    "a" * 257,
    "-a",
]


@pytest.mark.parametrize("completion_id", ODD_IDS)
def test_an_id_that_might_reach_another_url_is_refused(completion_id: str) -> None:
    endpoint = Endpoint.parse("https://api.openai.com/v1")
    with pytest.raises(ValueError, match="not the id of a completion"):
        endpoint.completion_target(completion_id)
    with pytest.raises(ValueError, match="not the id of a completion"):
        endpoint.messages_target(completion_id, {})


@unhurried
@given(st.sampled_from(ODD_IDS) | st.text(max_size=8) | st.from_regex(r"[A-Za-z0-9._-]{1,257}", fullmatch=True))
def test_the_client_accepts_the_ids_that_a_change_may_have_and_no_others(completion_id: str) -> None:
    try:
        MetadataChange(completion_id, {})
    except InvalidChange:
        with pytest.raises(ValueError, match="not the id of a completion"):
            Endpoint.parse("https://h/v1").completion_target(completion_id)
    else:
        target = Endpoint.parse("https://h/v1").completion_target(completion_id)
        assert target == URL(target).raw_path == f"/v1/chat/completions/{completion_id}"


def test_parameters_are_quoted() -> None:
    endpoint = Endpoint.parse("https://h/v1?api-version=1")
    target = endpoint.list_target({"metadata[a&b]": "c=d e/é", "order": "asc"})
    assert target == "/v1/chat/completions?api-version=1&metadata%5Ba%26b%5D=c%3Dd%20e%2F%C3%A9&order=asc"


@pytest.mark.parametrize(
    ("base_url", "auth", "header"),
    [
        ("https://api.openai.com/v1", "auto", {"Authorization": "Bearer KEY"}),
        ("https://r.openai.azure.com/openai/v1", "auto", {"api-key": "KEY"}),
        ("https://R.OpenAI.Azure.COM/openai/v1", "auto", {"api-key": "KEY"}),
        ("https://r.openai.azure.com.example.org/v1", "auto", {"Authorization": "Bearer KEY"}),
        ("https://r.openai.azure.com/openai/v1", "bearer", {"Authorization": "Bearer KEY"}),
        ("https://gateway.example.org/v1", "api-key", {"api-key": "KEY"}),
    ],
)
def test_the_key_goes_into_the_header_that_the_host_reads(base_url: str, auth: Auth, header: dict[str, str]) -> None:
    endpoint = Endpoint.parse(base_url)
    assert endpoint.authorization("KEY", auth) == header


@pytest.mark.parametrize("odd", ["", "sk-secret\n", "sk secret", "sk-s\u00e9cret", "sk-\0secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(odd: str) -> None:
    with pytest.raises(ValueError, match="the API key is empty, or holds") as refused:
        Client(base_url="https://h/v1", api_key=odd)
    assert "cret" not in str(refused.value)


def test_an_organization_or_project_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="organization"):
        Client(base_url="https://h/v1", api_key="KEY", organization="a\r\nb: c")
    with pytest.raises(ValueError, match="project"):
        Client(base_url="https://h/v1", api_key="KEY", project="a b")


def test_neither_key_nor_query_is_in_the_clients_repr() -> None:
    client = Client(base_url="https://h/v1?code=SECRET", api_key="SECRET-KEY")
    assert repr(client) == "<Client https://h/v1/chat/completions>"
