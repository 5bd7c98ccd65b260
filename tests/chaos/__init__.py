import pytest

pytest.register_assert_rewrite("tests.chaos.crew")  # it says what was not as it should be
