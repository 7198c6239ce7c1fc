"""A service that counts what it handles, and the records that its partitions are owned by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tenantry import Context, Retry, Service
from tenantry.bus import Bucket, Bus
from tenantry.letters import Letter, Letters, Selection
from tenantry.messages.checkpoints import Checkpoint, Lease
from tenantry.subjects import PARTITIONS
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import Note, Noted


class Counted(Struct, frozen=True):
    """All that was counted, in order."""

    texts: tuple[str, ...]


QUICK = Retry(tries=3, first=0.05, most=0.1)


class Counting:
    """Appends each text to the tenant's state and says so; nothing makes up for a second time.

    `gate` holds its handlers back while it is shut, `wrong` has the texts that fail.
    """

    def __init__(self, name: str, *, gate: bool = False, **options: Any) -> None:
        service = self.service = Service(name, version="1.0.0", retry=QUICK)
        self.counted = service.event("counted", Noted)
        service.command("count", public=True, timeout=120.0, **options)(self.count)
        service.request("texts", public=True)(self.texts)
        self.ran: list[tuple[str, str]] = []
        self.attempts: dict[str, int] = {}
        """The last attempt of each text."""
        self.wrong: set[str] = set()
        self.gate = asyncio.Event()
        if not gate:
            self.gate.set()

    async def count(self, ctx: Context, note: Note) -> None:
        """Append, and say so."""
        self.ran.append((ctx.tenant, note.text))
        self.attempts[note.text] = ctx.attempt
        entry = await ctx.state.get("texts", Counted)
        if not note.count:
            await self.gate.wait()
        if note.text in self.wrong:
            raise RuntimeError("as the test wants it")
        before = entry.value.texts if entry else ()
        await ctx.state.put("texts", Counted((*before, note.text)))
        ctx.emit(self.counted, Noted(note.text))

    async def texts(self, ctx: Context) -> Counted:
        """All that was counted, in order."""
        entry = await ctx.state.get("texts", Counted)
        return entry.value if entry else Counted(())

    def runs(self, text: str) -> int:
        """How often a text was begun here."""
        return sum(text == each for _, each in self.ran)

    async def begins(self, text: str, times: int = 1) -> None:
        """Return when a text was begun so often."""

        async def check() -> bool:
            return self.runs(text) >= times

        await eventually(check)

    async def send(self, program: Program, *texts: str, passes: bool = False) -> list[int]:
        """Send commands; one that `passes` does not wait at the gate. Returns their sequences."""
        sent = []
        for text in texts:
            note = {"text": text, "count": int(passes)}
            sent.append((await program.client.publish(f"{self.service.name}.count", note)).seq)
        return sent

    async def has(self, program: Program, *texts: str) -> None:
        """Return when exactly these are counted, in order; each said so once."""

        async def check() -> bool:
            return await program.texts(self.service.name) == list(texts)

        await eventually(check)


class Owners:
    """The checkpoints and leases of one service, as the buckets have them."""

    def __init__(self, control: Bus, service: str) -> None:
        self.service = service
        self.control = control
        self._checkpoints = Bucket(control, "checkpoints", Checkpoint)
        self._leases = Bucket(control, "leases", Lease)

    async def checkpoint(self, partition: int) -> Checkpoint:
        found = await self._checkpoints.get(f"{self.service}.{partition}")
        return found.value if found is not None else Checkpoint()

    async def all(self) -> list[Checkpoint]:
        return [await self.checkpoint(number) for number in range(PARTITIONS)]

    async def change(
        self, partition: int, change: Callable[[Checkpoint], Checkpoint]
    ) -> Checkpoint:
        """Write over the checkpoint, whoever owns it."""

        def changed(found: Checkpoint | None) -> Checkpoint:
            return change(found or Checkpoint())

        done = await self._checkpoints.change(f"{self.service}.{partition}", changed)
        assert done.value is not None
        return done.value

    async def lease(self, name: str) -> None:
        """Make a lease that nobody renews."""
        lease = Lease(service=self.service, version="1.0.0", renewed=1)
        await self._leases.put(f"{self.service}.{name}", lease)

    async def is_alive(self, lease: str) -> bool:
        return await self._leases.get(f"{self.service}.{lease}") is not None

    async def owners(self) -> list[str]:
        """The owner of each partition; empty for one that has none that is alive."""
        names = [each.owner for each in await self.all()]
        alive = {name for name in set(names) if name and await self.is_alive(name)}
        return [name if name in alive else "" for name in names]

    async def shared(self, instances: int) -> None:
        """Return when so many instances own all partitions, each its share."""

        async def check() -> bool:
            names = await self.owners()
            share = -(-PARTITIONS // instances)
            counts = [names.count(name) for name in set(names)]
            return "" not in names and len(counts) == instances and max(counts) <= share

        await eventually(check)

    async def released(self) -> None:
        """Return when every partition was released."""

        async def check() -> bool:
            return not any(each.owner for each in await self.all())

        await eventually(check)

    async def letters(self, tenant: str) -> list[Letter]:
        """The dead letters of a tenant."""
        which = Selection(tenant=tenant, service=self.service)
        return [letter async for letter in Letters(self.control).select(which)]

    async def letter(self, tenant: str) -> Letter:
        """The one dead letter of a tenant, when it is there."""

        async def check() -> bool:
            return len(await self.letters(tenant)) == 1

        await eventually(check)
        (letter,) = await self.letters(tenant)
        return letter

    async def events(self, tenant: str) -> list[str]:
        """What the service has said of a tenant, in order."""
        found = await journal(self.control, tenant, f"{self.service}.counted")
        return [each.data.decode().split('"')[3] for each in found]


async def prepared(mesh: Mesh, counting: Counting, owners: Owners, program: Program) -> None:
    """Let the service run once and end, so that commands for it are stored and wait."""
    running = mesh.start(mesh.worker(counting.service))
    await mesh.ready(program, f"{counting.service.name}.texts")
    await owners.shared(1)
    await running.stop()
    await owners.released()
