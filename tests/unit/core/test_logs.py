"""Logs, as a program of its own writes them: `configure` is for a whole process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import logging
import structlog
from tenantry import logs
logs.configure({arguments})
log = structlog.get_logger("test", tenant="acme")
log.debug("low")
log.info("placed", count=2, thing=object)
log.warning("high")
logging.getLogger("nats").warning("nats-py says it too")
def fail(token):
    raise ValueError("broken")
try:
    fail("secret" + "-inside")
except ValueError:
    log.exception("failed")
"""


def environment(**changes: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TENANTRY_LOG")}
    return kept | changes


def run(arguments: str = "", **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments)],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What a program writes whose stderr is no terminal."""
    return [json.loads(line) for line in run()]


def test_without_a_terminal_each_line_is_one_json_object(lines: list[dict[str, Any]]) -> None:
    assert [line["event"] for line in lines] == ["placed", "high", "failed"]


def test_a_line_has_its_level_time_and_fields(lines: list[dict[str, Any]]) -> None:
    first = lines[0]
    assert (first["level"], first["tenant"], first["count"]) == ("info", "acme", 2)
    assert first["timestamp"].endswith("Z")


def test_what_json_cannot_carry_is_described(lines: list[dict[str, Any]]) -> None:
    assert "object" in lines[0]["thing"]


def test_an_exception_is_part_of_its_line(lines: list[dict[str, Any]]) -> None:
    (told,) = lines[2]["exception"]
    assert (told["exc_type"], told["exc_value"]) == ("ValueError", "broken")


def test_local_variables_stay_out_of_the_log(lines: list[dict[str, Any]]) -> None:
    assert "secret-inside" not in json.dumps(lines)


def test_text_is_asked_for_by_the_environment() -> None:
    text = run(TENANTRY_LOG_FORMAT="text")
    assert "placed" in text[0]
    assert "count=2" in text[0]
    assert "ValueError: broken" in text
    assert not any("secret-inside" in line for line in text)


def test_an_argument_goes_before_the_environment() -> None:
    assert json.loads(run("json=True, level='error'", TENANTRY_LOG_FORMAT="text")[0])


@pytest.mark.parametrize(("level", "first"), [("DEBUG", "low"), ("warning", "high")])
def test_the_level_is_the_environments(level: str, first: str) -> None:
    assert json.loads(run(TENANTRY_LOG_LEVEL=level)[0])["event"] == first


def test_a_level_that_is_none_means_info() -> None:
    assert json.loads(run(TENANTRY_LOG_LEVEL="loud")[0])["event"] == "placed"


def test_on_a_terminal_there_are_short_coloured_lines() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(theirs, "wb", buffering=0) as stderr:
            subprocess.run(
                [sys.executable, "-c", PROGRAM.format(arguments="level='warning'")],
                env=environment(TERM="xterm"),
                stderr=stderr,
                check=True,
                timeout=30,
            )
        told = screen.read(65536).decode()
    assert "\x1b[" in told
    assert "high" in told
    assert not told.startswith("{")
