"""A shown URL never contains a password, in any form."""

import pytest

from config.urls import shown_url, url_secrets

PASSWORD = "pw-s3cr3t"
ODD = [
    f"postgresql://me:{character}{PASSWORD}@host/db" for character in ("#", "/", "?", "@", "[", "]", "%zz@", " ", "\n")
]
ODD += [
    f"postgresql://me:{PASSWORD}#1@host/db",
    f"postgresql://me:12/{PASSWORD}@host/db",
    f"postgresql://me:12?{PASSWORD}@host/db",
    f"redis://:12#{PASSWORD}@host/0",
    f"redis://[{PASSWORD}",
    f"redis://me:{PASSWORD}@host\uff0fdb",
    f"redis://me:{PASSWORD}\uff20host/0",
    f"https://me:{PASSWORD}\uff03@host/v1",
    f"https://[::1:{PASSWORD}/v1",
    f"host=localhost password={PASSWORD} dbname=app",
    f"me:{PASSWORD}@host:5432/db",
    f"{PASSWORD}",
    f"mysql://me:{PASSWORD}@host/db",
    f"sqlite://me:{PASSWORD}@host/db",
    f"postgresql:/me:{PASSWORD}@host/db",
    f"postgresql://host:{PASSWORD}/db",
    f"postgresql://me:{PASSWORD}@host/db@",
    f"POSTGRESQL://me:{PASSWORD}@host/db",
]


@pytest.mark.parametrize("url", ODD)
def test_of_a_url_that_does_not_parse_the_scheme_alone_is_shown(url: str) -> None:
    scheme = url.partition("://")[0] + "://" if "://" in url else ""
    assert shown_url(url) == f"{scheme}***"
    assert url_secrets(url) == [url]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{PASSWORD}@host:5432/db", "postgresql://me:***@host:5432/db"),
        (f"postgresql://me:{PASSWORD}:x%2F@[::1]:5432,b/db", "postgresql://me:***@[::1]:5432,b/db"),
        (f"postgresql://me@%2Frun%2Fpg/db?password={PASSWORD}", "postgresql://me@%2Frun%2Fpg/db?password=***"),
        (f"postgresql:///db?p%61ssword={PASSWORD}&listen=off", "postgresql:///db?p%61ssword=***&listen=off"),
        (
            f"postgresql://host/db?sslmode=require&sslpassword={PASSWORD}",
            "postgresql://host/db?sslmode=require&sslpassword=***",
        ),
        (f"redis://:{PASSWORD}@host/0", "redis://:***@host/0"),
        (f"rediss://{PASSWORD}@host/0?prefix=mine", "rediss://***@host/0?prefix=mine"),
        (f"https://host/v1?api-version=1&key={PASSWORD}", "https://host/v1?api-version=1&key=***"),
        (f"https://host/v1?{PASSWORD}", "https://host/v1?***"),
        (f"sqlite:///q.db?password={PASSWORD}", "sqlite:///q.db?password=***"),
    ],
)
def test_a_password_or_a_value_of_the_query_is_blotted_out(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert any(PASSWORD in secret for secret in url_secrets(url)) or "sqlite" in url or shown.count("***@host/0?") == 1


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///metasync.db",
        "sqlite:////home/j\u00fcrgen/a@b #1.db",
        "memory:",
        "postgresql://host/db",
        "postgres://me@host:5432/db?listen=off&sslmode=verify-full",
        "redis://host:6379/0",
        "https://api.openai.com/v1",
        "https://res.openai.azure.com/openai?api-version=2024-10-21",
        "http://127.0.0.1:8080/v1",
    ],
)
def test_a_url_without_a_secret_is_shown_as_it_is(url: str) -> None:
    assert shown_url(url) == url
    assert url_secrets(url) == []


def test_a_password_that_is_a_mere_word_is_not_blotted_out_of_everything() -> None:
    assert url_secrets("postgresql://metasync:metasync@host/db") == []
    assert url_secrets("postgresql://me:p%40ss-w0rd@host/db") == ["p%40ss-w0rd", "p@ss-w0rd"]
