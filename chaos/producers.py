"""Tenants' programs: plain nats-py at the edge, one command at a time, so that order is known."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from chaos.book import Task
from chaos.facts import Key, Sent
from chaos.world import World

PATIENCE = 90.0
"""How long after the faults a command may wait for its acknowledgement, seconds."""

_TIMEOUT, _LONG_TIMEOUT = 2.0, 15.0
_KINDS = {"plain": 82.0, "slow": 4.0, "flaky": 6.0, "later": 6.0, "reject": 1.0, "poison": 1.0}
_LOOSE, _BARE = 0.1, 0.15
"""How many commands go to the action whose messages have no order, and to the one without state."""

KILLERS_EACH = 100.0
"""One command more that ends its worker for each of so many seconds, and one in any case."""
_ERRORS = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError, ValueError, KeyError)


class Producer:
    """Sends commands of one tenant, the next one when the last was acknowledged."""

    def __init__(
        self, tenant: str, name: str, dice: random.Random, *, whole: bool, timeout: float
    ) -> None:
        self.sent: list[Sent] = []
        self.failures: Counter[str] = Counter()
        """Publishes that were not acknowledged, by what came instead."""
        self.given_up = ""
        """The command that never was acknowledged, if any."""
        self._tenant = tenant
        self._name = name
        self._dice = dice
        self._whole = whole
        self._timeout = timeout
        self.killers: set[int] = set()
        """Which of its commands end their worker."""

    async def run(self, client: Client, stop: asyncio.Event, pause: float) -> None:
        """Send until `stop` is set and the last is acknowledged; `pause` seconds in the mean."""
        stream = client.jetstream(timeout=self._timeout)
        sequence = 0
        await asyncio.sleep(self._dice.uniform(0, pause))
        while not stop.is_set():
            sequence += 1
            task = self._task(sequence)
            if not await self._send(stream, task, stop):
                self.given_up = f"{self._name}-{sequence}"
                return
            await asyncio.sleep(self._dice.expovariate(1 / pause))

    def _task(self, sequence: int) -> Task:
        kind = self._dice.choices(list(_KINDS), list(_KINDS.values()))[0]
        kind = "plain" if kind == "later" and not self._whole else kind
        kind = "killer" if sequence in self.killers else kind
        long = self._dice.random() < 0.1
        return Task(
            tenant=self._tenant,
            producer=self._name,
            sequence=sequence,
            kind=kind,
            fails=self._dice.randint(1, 3) if kind == "flaky" else 0,
            seconds=self._dice.uniform(4.0, 7.0) * (1 if long else 0.15),
        )

    def _action(self) -> str:
        which = self._dice.random() if self._whole else 1.0
        return "loose" if which < _LOOSE else "bare" if which < _LOOSE + _BARE else "do"

    async def _send(self, stream: JetStreamContext, task: Task, stop: asyncio.Event) -> bool:
        """Publish under one id until it is acknowledged; false where it never is."""
        body, patience = msgspec.json.encode(task), 0.0
        action = self._action()
        while patience < PATIENCE:
            try:
                ack = await stream.publish(
                    f"tenant.{self._tenant}.chaos.{action}",
                    body,
                    headers={"Nats-Msg-Id": f"{self._tenant}-{self._name}-{task.sequence}"},
                )
            except _ERRORS as error:
                self.failures[f"{type(error).__name__}: {error}"[:120]] += 1
                pause = self._dice.uniform(0.1, 0.6)
                await asyncio.sleep(pause)
                patience += (pause + _TIMEOUT / 2) * stop.is_set()
            else:
                key = Key(self._name, task.sequence)
                self.sent.append(Sent(self._tenant, key, task.kind, ack.seq))
                return True
        return False


class Producers:
    """All of them, each tenant's on one connection."""

    def __init__(self, world: World, seed: int, *, patient: bool) -> None:
        self._world = world
        self.all = [
            Producer(
                tenant,
                f"p{number}",
                random.Random(f"{seed}/{tenant}/{number}"),
                whole=world.whole,
                # Where none may fail, a machine that is busy must not look like one that loses.
                timeout=_LONG_TIMEOUT if patient else _TIMEOUT,
            )
            for tenant in world.size.names()
            for number in range(world.size.producers)
        ]

    def have_killers(self, seed: int, seconds: float, rate: float) -> None:
        """Let some commands of the first half of a run end their worker."""
        dice = random.Random(f"{seed}/killers")
        each = max(1, int(seconds * rate / len(self.all) / 2))
        for _ in range(1 + int(seconds / KILLERS_EACH)):
            dice.choice(self.all).killers.add(dice.randint(1, each))

    async def run(self, stop: asyncio.Event, rate: float) -> None:
        """Send about `rate` commands a second, all together, until `stop` is set."""
        pause = len(self.all) / rate
        per = self._world.size.producers
        async with asyncio.TaskGroup() as group:
            for index, tenant in enumerate(self._world.size.names()):
                own = self.all[index * per : (index + 1) * per]
                group.create_task(self._run(tenant, own, stop, pause))

    async def _run(
        self, tenant: str, own: list[Producer], stop: asyncio.Event, pause: float
    ) -> None:
        client = await self._world.producer(tenant)
        try:
            await asyncio.gather(*(producer.run(client, stop, pause) for producer in own))
        finally:
            await client.close()

    @property
    def sent(self) -> list[Sent]:
        """All that was acknowledged."""
        return [sent for producer in self.all for sent in producer.sent]

    @property
    def failures(self) -> Counter[str]:
        """Publishes that were not acknowledged, by what came instead."""
        return sum((producer.failures for producer in self.all), Counter())
