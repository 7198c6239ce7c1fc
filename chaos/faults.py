"""Faults by a seeded plan, and how each is done to a world."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chaos.process import Process
from chaos.world import World

KINDS: Mapping[str, tuple[tuple[str, ...], float]] = {
    # kind: the roles that it may strike, and how often relative to the others
    "kill": (("worker", "router", "tenants"), 6.0),
    "kill-nats": (("nats",), 1.5),
    "restart-nats": (("nats",), 0.7),
    "hang-nats": (("nats",), 1.0),
    "suspend": (("worker", "worker", "worker", "router", "router", "tenants"), 6.0),
    "pause": (("worker", "worker", "router"), 3.0),
    "cut": (("worker", "router"), 2.0),
    "restart": (("worker", "router", "tenants"), 2.0),
    "roll": (("router", "worker"), 1.0),
    "replay": (("tenant",), 2.0),  # no fault, but what happens while there are some
}
NONE = "none"
"""In place of kinds: no faults at all."""

GENTLE = frozenset({"roll", "replay", NONE})
"""What must not make a single publish fail."""

PAUSE = 2.0
"""Mean time between the beginnings of two faults, seconds."""

_SHORT, _LONG = (0.5, 4.0), (8.5, 15.0)
_SUSPENDED = (3.0, 15.0)
"""Most processes are stopped for longer than a lease is valid."""


class Fault(NamedTuple):
    """One fault: when it begins (seconds from the start), what, to whom, for how long."""

    at: float
    kind: str
    target: str
    seconds: float


def plan(
    seed: int, seconds: float, targets: Mapping[str, Sequence[str]], kinds: Sequence[str] = ()
) -> list[Fault]:
    """The faults of a run: the same for the same seed, length, processes and kinds."""
    dice = random.Random(seed)
    known = [kind for kind in KINDS if not kinds or kind in kinds]
    weights = [KINDS[kind][1] for kind in known]
    faults: list[Fault] = []
    rolls = 0
    at = 1.0 + dice.expovariate(1 / PAUSE)
    while at < seconds and known:
        kind = dice.choices(known, weights)[0]
        role = dice.choice(KINDS[kind][0])
        if kind == "roll":  # in turn, so that a short run has both
            role = KINDS[kind][0][rolls % 2]
            rolls += 1
        target = role if kind == "roll" else dice.choice(sorted(targets.get(role) or [""]))
        lasts = _lasts(kind, dice)
        if role in targets:
            faults.append(Fault(round(at, 2), kind, target, lasts))
        at += dice.expovariate(1 / PAUSE)
    return faults


def _lasts(kind: str, dice: random.Random) -> float:
    """How long a fault lasts, seconds."""
    long = dice.random()
    if kind == "suspend":
        span = _SUSPENDED if long < 0.75 else _SHORT
    elif kind in {"pause", "hang-nats"}:
        span = _LONG if long < 0.4 else _SHORT
    else:
        span = _SHORT
    return round(dice.uniform(*span), 2)


class Faults:
    """Does a plan to a world; each process suffers one fault at a time."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self.done: Counter[str] = Counter()
        self.now = ""
        """What was begun last."""
        self._rolling = asyncio.Lock()
        self._nodes = asyncio.Lock()
        """Of several NATS servers only one is struck at a time: the others must go on."""
        self._world = world
        self._faults = faults

    async def run(self, seconds: float) -> None:
        """Do all of it; returns when the last is over and everything runs again."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in self._faults:
                wait = began + fault.at - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, wait))
                group.create_task(self._do(fault, began + seconds))
            await asyncio.sleep(began + seconds - asyncio.get_running_loop().time())

    async def _do(self, fault: Fault, until: float) -> None:
        if fault.kind == "replay":
            self.done[fault.kind] += await self._world.replay(fault.target)
        elif fault.kind == "roll":
            async with self._rolling:  # whoever deploys does so once at a time
                for name in self._world.targets()[fault.target]:
                    await self._strike(fault, self._world.processes[name], until)
        elif fault.kind.endswith("-nats"):
            async with self._nodes:
                await self._strike(fault, self._world.processes[fault.target], until)
        else:
            await self._strike(fault, self._world.processes[fault.target], until)

    async def _strike(self, fault: Fault, process: Process, until: float) -> None:
        async with process.lock:
            if asyncio.get_running_loop().time() >= until:
                return  # it waited for another fault, and the time of faults is over
            self.done[fault.kind] += 1
            self.now = f"{fault.kind} {process.name}"
            match fault.kind:
                case "kill" | "kill-nats":
                    await process.kill()
                    await asyncio.sleep(min(fault.seconds, 3.0))
                    await process.start()
                case "restart" | "restart-nats" | "roll":
                    await process.stop()
                    await process.start()
                case "suspend" | "hang-nats":
                    process.suspend()
                    await asyncio.sleep(fault.seconds)
                    process.resume()
                case "pause" | "cut":
                    proxy = self._world.proxies[process.name]
                    (proxy.pause if fault.kind == "pause" else proxy.cut)()
                    await asyncio.sleep(fault.seconds)
                    proxy.heal()
