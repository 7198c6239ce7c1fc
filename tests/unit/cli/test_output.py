from __future__ import annotations

import pytest

from tenantry.cli import output
from tenantry.errors import BadMessage, NotFound


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "public", "why"), [("a" * 200, True, None), ("b", False, "x\ny")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{'NAME':<200}  PUBLIC  WHY",
        f"{'a' * 200}  yes",
        f"{'b':<200}  no      x y",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (61, "1m 1s"), (3_600, "1h"), (90_061, "1d 1h"), (604_800, "7d")],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_moment_is_in_utc() -> None:
    assert output.moment(0.9) == "1970-01-01T00:00:00Z"


def test_no_moment_is_nothing() -> None:
    assert output.moment(None) == ""


def test_an_error_is_one_line_with_its_hint() -> None:
    error = NotFound("no\narticle", hint="look\nelsewhere")
    assert output.error_line(error) == "not_found: no article (look elsewhere)"


def test_an_error_in_a_body_tells_its_place() -> None:
    error = BadMessage("Expected `int`", path="$.orders[3].quantity")
    assert output.error_line(error) == "bad_message: Expected `int` at $.orders[3].quantity"
