"""The machine that is measured on: its shape, its cores, what its processes spend."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tenantry import compiled
from tenantry.local.server import find_nats_server


def cores() -> tuple[set[int], set[int]]:
    """Those of the load generators, and those of everything that is measured.

    Half and half where there are two or more: then neither takes the other's time.
    """
    every = sorted(os.sched_getaffinity(0))
    half = len(every) // 2
    return (set(every[:half]), set(every[half:])) if half else (set(every), set(every))


LOAD_CORES, SYSTEM_CORES = cores()


def pin(core: Iterable[int]) -> Callable[[], None]:
    """What a child runs before its program, to stay on these cores."""
    chosen = set(core)
    return lambda: os.sched_setaffinity(0, chosen)


def pin_self() -> None:
    """Keep this process and the children it starts from now on off the generators' cores."""
    os.sched_setaffinity(0, SYSTEM_CORES)


@contextmanager
def all_cores() -> Iterator[None]:
    """Start children on all cores, where the load is too small to be in the way."""
    os.sched_setaffinity(0, LOAD_CORES | SYSTEM_CORES)
    try:
        yield
    finally:
        pin_self()


def shape() -> dict[str, Any]:
    """What the figures hold for: put beside them."""
    server = subprocess.run(
        [str(find_nats_server()), "--version"], capture_output=True, text=True, check=True
    )
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": model,
        "cores": len(LOAD_CORES | SYSTEM_CORES),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nats_server": server.stdout.split()[-1].removeprefix("v"),
        "nats_py": version("nats-py"),
        "faststream": version("faststream"),
        "compiled": compiled,
    }


def cpu(processes: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds that each has used so far, threads and all.

    By Linux's clock of each process, in nanoseconds: /proc counts in hundredths of a second.
    """
    return {name: time.clock_gettime((~pid << 3) | 2) for name, pid in processes.items()}


def memory(pid: int) -> int:
    """What a process has for itself alone (USS), bytes."""
    return int(psutil.Process(pid).memory_full_info().uss)
