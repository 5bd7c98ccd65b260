import pytest

from config.durations import duration_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("250ms", 0.25), ("30s", 30), ("15m", 900), ("2h", 7200), ("1d", 86400), (" 1.5 s ", 1.5), (5, 5)],
)
def test_durations_are_seconds_or_a_number_with_a_unit(text: str | float, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 fortnight", "1s1s", "nan", "inf", "1e3", float("nan"), -1.0, True, [1], None]
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        duration_seconds(text)
