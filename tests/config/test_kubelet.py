"""Variables that the kubelet sets for Services with names like ours are ignored; mistyped settings are not."""

from pathlib import Path

import pytest

from config.settings import ConfigurationError, load
from tests.deploy.kubelet import service_links


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", ["metasync", "metasync-http", "metasync-secrets-dir", "metasync-9", "metasync-service"]
)
def test_a_service_of_any_name_changes_no_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load().settings.model_dump()
    for variable, value in service_links(
        name, [{"name": "web", "port": 1}, {"port": 65535, "protocol": "SCTP"}]
    ).items():
        monkeypatch.setenv(variable, value)
    assert load().settings.model_dump() == expected


def test_an_address_may_be_of_the_sixth_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASYNC_HTTP_PORT", "tcp://[fd00::17]:80")
    monkeypatch.setenv("METASYNC_HTTP_PORT_80_TCP_ADDR", "fd00::17")
    assert load().settings.http_port is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METASYNC_PORT", "9464"),
        ("METASYNC_HTTP_PORT", "tcp://example.com:80"),
        ("METASYNC_HTTP_PORT", "http://10.0.0.1:80"),
        ("METASYNC_SERVICE_HOST", "localhost"),
        ("METASYNC_SERVICE_PORT", "http"),
        ("METASYNC_SERVICE", "10.0.0.1"),
        ("METASYNC_PORT_9464_TCP_PROTO", "10.0.0.1"),
        ("METASYNC_QUEUE_HOST", "10.0.0.1"),
        ("metasync_port", "tcp://10.0.0.1:80"),
        ("METASYNC_PORT", "tcp://10.0.0.1:80\n"),
    ],
)
def test_what_only_looks_alike_is_refused_by_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load()


def test_a_file_tells_of_no_service(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("METASYNC_PORT=tcp://10.0.0.1:80\n")
    with pytest.raises(ConfigurationError, match=r"(?i)metasync_port"):
        load()
