"""One run: a world, producers and faults; then peace, and the oracle's verdict."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nats.aio.client import Client

from chaos import facts as reading
from chaos import oracle
from chaos.facts import Facts
from chaos.faults import GENTLE, Faults, plan
from chaos.oracle import Finding
from chaos.process import ProcessTrouble
from chaos.producers import Producers
from chaos.report import Report
from chaos.settle import settle
from chaos.world import MeshWorld, PlainWorld, Size, World

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is made of; `rate` is commands per second of all producers together."""

    seed: int
    seconds: float = 60.0
    size: Size = field(default_factory=Size)
    rate: float = 180.0
    plain: bool = False
    kinds: tuple[str, ...] = ()
    keep: Path | None = None

    @property
    def gentle(self) -> bool:
        """Whether nothing happens but what no tenant may notice."""
        return bool(self.kinds) and GENTLE.issuperset(self.kinds)

    def command(self) -> str:
        """The command line that repeats the run."""
        size = self.size
        words = [f"--seed {self.seed}", f"--seconds {self.seconds:g}", f"--rate {self.rate:g}"]
        words += [f"--{name} {count}" for name, count in asdict(size).items()]
        words += ["--plain"] * self.plain
        words += [f"--faults {','.join(self.kinds)}"] * bool(self.kinds)
        return f'make chaos CHAOSARGS="{" ".join(words)}"'


async def run(options: Options, folder: Path, say: Say) -> Report:
    """Do it, in a folder of its own."""
    world = (PlainWorld if options.plain else MeshWorld)(folder, options.size)
    try:
        say("starting")
        await world.start()
        return await _Run(options, world, say).run()
    finally:
        await world.close()


class _Run:
    def __init__(self, options: Options, world: World, say: Say) -> None:
        self._options = options
        self._world = world
        self._say = say
        self._producers = Producers(world, options.seed, patient=options.gentle)
        if world.whole and not options.gentle:
            self._producers.have_killers(options.seed, options.seconds, options.rate)
        faults = plan(options.seed, options.seconds, world.targets(), options.kinds)
        self._faults = Faults(world, faults)
        _note(world.folder / "plan.json", [fault._asdict() for fault in faults])

    async def run(self) -> Report:
        failed = await self._storm()
        client = await self._world.reader()
        try:
            settled = await settle(client, self._say)
            return await self._judge(client, settled, failed)
        finally:
            await client.close()

    async def _storm(self) -> list[Finding]:
        """Producers and faults together; returns once both are over."""
        stop = asyncio.Event()
        sending = asyncio.create_task(self._producers.run(stop, self._options.rate))
        ticking = asyncio.create_task(self._tick())
        failed = []
        try:
            await self._faults.run(self._options.seconds)
        except* ProcessTrouble as trouble:
            failed = [Finding("process", "", str(each)) for each in trouble.exceptions]
        ticking.cancel()
        stop.set()
        self._say("faults are over")
        await sending
        return failed

    async def _tick(self) -> None:
        began = time.monotonic()
        while True:
            passed = time.monotonic() - began
            sent, count = len(self._producers.sent), self._faults.done.total()
            self._say(
                f"{passed:.0f} of {self._options.seconds:g} s: {sent} acknowledged, {count} faults"
                f" (last: {self._faults.now or 'none'})"
            )
            await asyncio.sleep(1.0)

    def _refused(self) -> Iterator[Finding]:
        """Publishes that failed although nothing happened but what must fail none."""
        if self._options.gentle:
            for why, count in self._producers.failures.items():
                yield Finding("refused", "", f"{count} publishes failed: {why}")

    async def _judge(self, client: Client, settled: float | None, failed: list[Finding]) -> Report:
        self._say("reading")
        facts = await reading.collect(client, self._producers.sent, self._world.folder)
        _dump(self._world.folder, facts)
        verdict = oracle.judge(facts)
        findings = [
            *failed,
            *(Finding("process", "", text) for text in self._world.troubles()),
            *(
                Finding("never acknowledged", "", producer.given_up)
                for producer in self._producers.all
                if producer.given_up
            ),
            *self._refused(),
            *verdict.findings,
        ]
        options = self._options
        return Report(
            command=options.command(),
            seed=options.seed,
            plain=options.plain,
            seconds=options.seconds,
            settled=settled,
            folder="",
            failures=dict(self._producers.failures),
            faults=dict(self._faults.done),
            figures=verdict.figures,
            findings=findings,
        )


def _dump(folder: Path, facts: Facts) -> None:
    """Keep what the oracle saw beside the logs."""
    _note(folder / "facts.json", asdict(facts))


def _note(path: Path, body: object) -> None:
    path.write_text(json.dumps(body, indent=1))
