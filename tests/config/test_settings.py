from pathlib import Path

import pytest

from config.settings import FIELDS, ConfigurationError, Settings, load, masked, variable


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without settings files, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in FIELDS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_defaults_need_nothing() -> None:
    settings = load().settings
    assert settings.openai_base_url == "https://api.openai.com/v1"
    assert settings.queue_url == "sqlite:///metasync.db"
    assert (settings.max_concurrency, settings.max_attempts, settings.requests_per_minute) == (64, 8, None)
    assert (settings.request_timeout, settings.lease, settings.shutdown_grace) == (60, 300, 25)
    assert (settings.give_up_after, settings.semantics, settings.read_lag) == (6 * 3600, "unknown", 60)
    assert settings.not_found_grace is None  # 2 minutes for a drain, 15 for a daemon


def test_the_first_source_that_has_a_setting_wins_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def origin() -> tuple[float, str]:
        loaded = load(flags)
        return loaded.settings.lease, loaded.origins["lease"]

    flags: dict[str, object] = {}
    assert origin() == (300, "default")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "METASYNC_LEASE").write_text("1m\n")
    monkeypatch.setenv("METASYNC_SECRETS_DIR", str(secrets))
    assert origin() == (60, f"secret file in {secrets}")
    (tmp_path / "metasync.toml").write_text('lease = "2m"\n')
    assert origin() == (120, "metasync.toml")
    (tmp_path / ".env").write_text("METASYNC_LEASE=3m\nSOMEBODY_ELSES=1\n")
    assert origin() == (180, ".env")
    monkeypatch.setenv("METASYNC_LEASE", "4m")
    assert origin() == (240, "environment")
    flags["lease"] = "5m"
    assert origin() == (300, "flag")


def test_the_sdks_own_names_work_and_the_key_is_stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "OPENAI_API_KEY").write_text("sk-test\n")
    (tmp_path / "metasync.toml").write_text(f'secrets_dir = "{secrets}"\n')
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    settings = load().settings
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-test"
    assert (settings.openai_org_id, settings.openai_project_id) == ("org-1", "proj-1")


def test_a_value_out_of_range_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASYNC_HTTP_PORT", "99999")
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert str(caught.value) == "METASYNC_HTTP_PORT, from environment, must be less than or equal to 65535"


def test_an_unknown_variable_is_named_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("METASYNC_LEESE", "5m")
        with pytest.raises(ConfigurationError, match="METASYNC_LEESE, in the environment, is no setting"):
            load()
    (tmp_path / ".env").write_text("METASYNC_LEESE=5m\n")
    with pytest.raises(ConfigurationError, match=r"METASYNC_LEESE, in \.env, is no setting"):
        load()
    (tmp_path / ".env").unlink()
    (tmp_path / "metasync.toml").write_text("leese = 5\n")
    with pytest.raises(ConfigurationError, match=r"leese, from metasync\.toml, is no setting"):
        load()
    (tmp_path / "metasync.toml").unlink()
    (tmp_path / "METASYNC_LEESE").write_text("5")
    with pytest.raises(ConfigurationError, match="METASYNC_LEESE, in the secrets directory"):
        load({"secrets_dir": tmp_path})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METASYNC_LEASE", "soon"),
        ("METASYNC_LEASE", "0"),
        ("METASYNC_MAX_CONCURRENCY", "0"),
        ("METASYNC_MAX_CONCURRENCY", "many"),
        ("METASYNC_REQUESTS_PER_MINUTE", "-1"),
        ("METASYNC_REQUESTS_PER_MINUTE", "nan"),
        ("METASYNC_MODE", "overwrite"),
        ("METASYNC_LOG_VALUES", "perhaps"),
        ("METASYNC_SECRETS_DIR", "/nowhere/at/all"),
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("OPENAI_BASE_URL", "https://user:word@example.com"),
        ("OPENAI_API_KEY", "sk-\u00e9"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_variable_and_not_the_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        load()
    if "KEY" in name:
        assert value not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://127.0.0.2/v1", "http://[::1]/v1", "https://x.org/v1"])
def test_plain_http_is_for_loopback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert load().settings.openai_base_url == url


@pytest.mark.parametrize("url", ["http://api.openai.com/v1", "http://10.0.0.1/v1", "http://localhost.example.com/v1"])
def test_the_key_does_not_go_over_plain_http_to_other_hosts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ConfigurationError, match=r"OPENAI_BASE_URL.*https"):
        load()


def test_settings_files_that_cannot_be_read_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "metasync.toml").write_text("lease =\n")
    with pytest.raises(ConfigurationError, match=r"^metasync\.toml cannot be read: .*\(at line 1, column 8\)"):
        load()


def test_shown_settings_contain_no_secret() -> None:
    flags = {"openai_api_key": "sk-very-secret", "queue_url": "postgresql://me:word@host/db?password=x"}
    settings = load(flags).settings
    shown = " ".join(masked(settings, field) for field in Settings.model_fields)
    assert "very-secret" not in shown
    assert "postgresql://me:***@host/db?password=***" in shown
    assert "word@" not in shown
    assert "very-secret" not in repr(settings)


def test_every_setting_has_a_variable_and_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert variable(name) in FIELDS
        assert field.description


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("lease = 2020-01-01", "METASYNC_LEASE, from metasync.toml, must be a duration"),
        ("lease = [1]", "METASYNC_LEASE, from metasync.toml, must be a duration"),
        (f"a = {'[' * 5000}", "metasync.toml cannot be read: "),
        ("METASYNC_LEASE = 5", "METASYNC_LEASE, from metasync.toml, is no setting: did you mean lease?"),
        (f"secrets_dir = '{'a' * 300}'", "cannot be read: File name too long"),
    ],
)
def test_any_other_content_of_the_file_is_refused_by_name(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "metasync.toml").write_text(toml)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert told in str(caught.value)


def test_a_settings_file_that_is_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "OPENAI_API_KEY").mkdir(parents=True)
    monkeypatch.setenv("METASYNC_SECRETS_DIR", str(secrets))
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY, in the secrets directory .*, is not a file"):
        load()
    monkeypatch.delenv("METASYNC_SECRETS_DIR")
    (tmp_path / "metasync.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"metasync\.toml cannot be read: it is a directory"):
        load()
