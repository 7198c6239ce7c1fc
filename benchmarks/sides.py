"""What is compared: a running system that answers requests, and one round of load on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks import machine
from benchmarks.client import Done, Generator, Stream


@dataclass(frozen=True, slots=True)
class Side:
    """A system under test. `stream(rate, in_flight)` is what a client of it sends."""

    name: str
    stream: Callable[[float, int], Stream]
    pids: Mapping[str, int]
    """Its processes: `server`, `router` (or the forwarder), `worker`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round on one side; times in seconds, CPU in seconds a message."""

    rate: float
    p50: float
    p99: float
    p999: float
    lost: int
    """Messages without a good answer."""
    load: float
    """CPU of the generator."""
    cpu: dict[str, float] = field(default_factory=dict)
    """By process."""

    @property
    def total(self) -> float:
        """CPU of all that is measured."""
        return sum(self.cpu.values())


async def ceiling(side: Side, generator: Generator, seconds: float, in_flight: int) -> Sample:
    """As many as it can: a closed loop, whose latencies are its queue's and nobody's."""
    return await _round(side, generator, seconds, side.stream(0.0, in_flight))


async def paced(side: Side, generator: Generator, seconds: float, rate: float) -> Sample:
    """At a rate that does not wait for answers: latencies are from when each was due."""
    return await _round(side, generator, seconds, side.stream(rate, 0))


async def _round(side: Side, generator: Generator, seconds: float, stream: Stream) -> Sample:
    before = machine.cpu(side.pids)
    done: Done = await generator.run(seconds, stream)
    (answers,) = done.streams
    if not answers.good:
        raise RuntimeError(f"{side.name}: no good answers: {answers.outcomes}")
    after = machine.cpu(side.pids)
    return Sample(
        rate=answers.rate,
        p50=answers.latency(50),
        p99=answers.latency(99),
        p999=answers.latency(99.9),
        lost=answers.sent - answers.good,
        load=done.cpu / answers.good,
        cpu={name: (after[name] - before[name]) / answers.good for name in after},
    )
