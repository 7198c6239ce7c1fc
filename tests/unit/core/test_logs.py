"""Logs, as a program of its own writes them: `configure` is for a whole process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


WORK = """
import os
import sys
import structlog
from tenantry import logs

class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no words")

logs.configure({arguments})
log = structlog.get_logger("test")
for number in range({lines}):
    log.info("work", number=number, text="x" * 1000, what=Unspeakable() if {unspeakable} else "")
os.write(1, f"done, lost {{logs.Lossy.lost}}".encode())
"""


def work(stderr: int, *, lines: int = 3, arguments: str = "", unspeakable: bool = False) -> str:
    """A program that logs with this as its stderr, and says at its end how many lines are lost."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WORK.format(lines=lines, arguments=arguments, unspeakable=unspeakable),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=60,
    )
    return done.stdout.decode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe that nobody reads."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_log_without_a_reader_does_not_fail_the_work(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    assert work(pipe[1]) == "done, lost 3"


def test_a_log_on_a_full_disk_does_not_fail_the_work() -> None:
    with Path("/dev/full").open("wb") as full:
        assert work(full.fileno()) == "done, lost 3"


def test_a_reader_that_does_not_read_does_not_stop_the_work(pipe: tuple[int, int]) -> None:
    text = work(pipe[1], lines=500)
    assert text.startswith("done, lost ")
    assert 0 < int(text.rpartition(" ")[2]) < 500


def test_a_reader_that_reads_gets_every_line(pipe: tuple[int, int]) -> None:
    assert work(pipe[1], lines=3) == "done, lost 0"
    assert select.select([pipe[0]], [], [], 0)[0]
    assert os.read(pipe[0], 65536).count(b"\n") == 3


@pytest.mark.parametrize("arguments", ["json=True", "json=False"])
def test_a_value_that_cannot_be_shown_does_not_fail_the_work(
    pipe: tuple[int, int], arguments: str
) -> None:
    assert work(pipe[1], arguments=arguments, unspeakable=True) == "done, lost 3"


def test_no_color_goes_before_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(theirs, "wb", buffering=0) as stderr:
            subprocess.run(
                [sys.executable, "-c", PROGRAM.format(arguments="level='warning'")],
                env=environment(TERM="xterm", NO_COLOR="1"),
                stderr=stderr,
                check=True,
                timeout=30,
            )
        assert b"\x1b[" not in screen.read(65536)
