from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tenantry.local import notify


def heard(script: str) -> bytes:
    """What a parent hears from a child that runs `script`."""
    reading, writing = os.pipe()
    code = f"from tenantry.local import notify\nimport os, subprocess\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, notify.VARIABLE: str(writing)},
        pass_fds=(writing,),
        check=True,
    )
    assert done.returncode == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read()


def test_ready_is_heard() -> None:
    assert heard("notify.ready('orders')") == b"ready orders\n"


def test_a_reason_of_several_lines_becomes_one() -> None:
    assert heard(r"notify.failed('no\n  way')") == b"failed no way\n"


def test_only_the_first_word_counts() -> None:
    assert heard("notify.ready(); notify.failed('x')") == b"ready \n"


def test_the_child_s_own_children_do_not_have_the_pipe() -> None:
    assert heard("assert notify.VARIABLE not in os.environ; notify.ready('x')") == b"ready x\n"


def test_without_a_parent_nothing_happens() -> None:
    notify.ready("nobody listens")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"ready nats://x\n", (True, "nats://x")),
        (b"failed setup: no\n", (False, "setup: no")),
        (b"odd\n", (False, "")),
    ],
)
def test_a_line_is_read(line: bytes, said: tuple[bool, str]) -> None:
    assert notify.read(line) == said
