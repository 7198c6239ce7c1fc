"""Closed-loop load by one plain NATS client, and the CPU that each process spent under it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from nats.aio.client import Client

from benchmarks.echo import BODY


@dataclass(frozen=True, slots=True)
class Round:
    """One round's figures; times in seconds."""

    messages: int
    elapsed: float
    p50: float
    p99: float
    cpu: dict[str, float]
    """CPU seconds by process."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.messages / self.elapsed

    def per_message(self, process: str) -> float:
        """CPU microseconds a message of one process."""
        return self.cpu[process] / self.messages * 1e6


async def measure(
    client: Client,
    subject: str,
    processes: Mapping[str, int],
    *,
    seconds: float,
    in_flight: int,
) -> Round:
    """Keep `in_flight` requests under way for so long; every answer must be a good one."""
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    latencies: list[float] = []
    watched = {name: psutil.Process(pid) for name, pid in processes.items()}
    before = {name: _cpu(process) for name, process in watched.items()}
    begin = time.perf_counter()
    end = begin + seconds

    async def ask() -> None:
        while (sent := time.perf_counter()) < end:
            answer = await client.request(subject, BODY, timeout=10, headers=dict(headers))
            if answer.headers and "Nats-Service-Error-Code" in answer.headers:
                raise RuntimeError(f"refused: {answer.data!r}")
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*(ask() for _ in range(in_flight)))
    elapsed = time.perf_counter() - begin
    latencies.sort()
    return Round(
        messages=len(latencies),
        elapsed=elapsed,
        p50=latencies[len(latencies) // 2],
        p99=latencies[int(len(latencies) * 0.99)],
        cpu={name: _cpu(process) - before[name] for name, process in watched.items()},
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
