from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tenantry.local import processes


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_birth_stays_the_same() -> None:
    assert processes.birth(os.getpid()) == processes.birth(os.getpid())


def test_a_process_that_is_not_there_has_no_birth() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.birth(process.pid) is None


def test_end_ends_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    born = processes.birth(sleeper.pid) or ""
    assert processes.end([(sleeper.pid, born)]) == 1
    assert sleeper.wait(5) == -signal.SIGTERM


def test_end_leaves_a_process_of_another_birth(sleeper: subprocess.Popen[bytes]) -> None:
    assert processes.end([(sleeper.pid, "1")]) == 0
    assert sleeper.poll() is None


def test_end_kills_what_does_not_listen() -> None:
    script = "trap '' TERM; echo; while :; do sleep 0.1; done"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        born = processes.birth(process.pid) or ""
        assert processes.end([(process.pid, born)], patience=0.2) == 1
        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_dies_with_its_parent() -> None:
    script = (
        "import signal, subprocess, time\n"
        "from tenantry.local import processes\n"
        "before = processes.die_with_parent(signal.SIGKILL)\n"
        "print(subprocess.Popen(['sleep', '60'], preexec_fn=before).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert processes.birth(child) is not None
        parent.kill()
    deadline = time.monotonic() + 5
    while processes.birth(child) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
