from __future__ import annotations

import pytest

from tenantry.cli import expiry
from tenantry.cli.usage import UsageError

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5_400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_a_duration_counts_from_now(text: str, seconds: int) -> None:
    assert expiry.parse(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text", ["2023-11-15", "2023-11-15T00:00:00Z", "2023-11-15T02:00:00+02:00"]
)
def test_a_date_is_utc_unless_it_says_else(text: str) -> None:
    assert expiry.parse(text, NOW) == 1_700_006_400


@pytest.mark.parametrize("text", ["", "soon", "0d", "-3d", "30", "1.5h", "2023-13-01"])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no expiry"):
        expiry.parse(text, NOW)


def test_the_past_is_refused() -> None:
    with pytest.raises(UsageError, match="lies in the past"):
        expiry.parse("2023-11-14", NOW)
