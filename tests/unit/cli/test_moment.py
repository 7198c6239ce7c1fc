from __future__ import annotations

import pytest

from tenantry.cli import moment
from tenantry.cli.moment import Point
from tenantry.cli.usage import UsageError

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("text", "ago"), [("30s", 30), ("5m", 300), ("2h", 7_200), ("3d", 259_200), ("1w", 604_800)]
)
def test_a_duration_is_so_long_ago(text: str, ago: int) -> None:
    assert moment.parse(text, NOW) == Point(time=NOW - ago)


@pytest.mark.parametrize(
    "text",
    ["2023-11-15", "2023-11-15T00:00:00", "2023-11-15T00:00:00Z", "2023-11-15T02:00:00+02:00"],
)
def test_a_time_is_utc_unless_it_says_else(text: str) -> None:
    assert moment.parse(text, NOW) == Point(time=1_700_006_400)


@pytest.mark.parametrize("text", ["0", "4711", "20231115"])
def test_a_bare_number_is_a_sequence(text: str) -> None:
    assert moment.parse(text, NOW) == Point(seq=int(text))


@pytest.mark.parametrize("text", ["", "soon", "0d", "-3", "1.5h", "2023-13-01", "²", "1" * 20])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a sequence nor a time"):
        moment.parse(text, NOW)
