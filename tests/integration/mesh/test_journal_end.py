"""The journal lost its end: what is gone is gone, and nothing new is taken for it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tenantry.bus import Bus
from tenantry.delivery.journal_end import last_seq, restore_end
from tenantry.errors import Unavailable
from tests.integration.mesh.counting import Counting, Owners
from tests.mesh import Mesh, Program, eventually

AWAY = 60.0


class Disk:
    """What the server keeps of its streams, to bring back an older state of it."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self._backend = mesh.backend
        self._kept = folder / "kept"
        self._store = mesh.backend.home / "data" / "jetstream"
        if not self._store.is_dir():
            pytest.skip("the server's store is not at hand")

    async def keep(self) -> None:
        """Keep a copy of everything, with the server down meanwhile."""
        await asyncio.to_thread(self._backend.stop)
        shutil.copytree(self._store, self._kept)
        await asyncio.to_thread(self._backend.start)

    async def rewind(self, *streams: str) -> None:
        """Bring these streams back as they were kept, all where none is named."""
        await asyncio.to_thread(self._backend.stop)
        rewound = 0
        for old in self._kept.rglob("streams/*"):
            if not streams or old.name in streams:
                there = self._store / old.relative_to(self._kept)
                shutil.rmtree(there, ignore_errors=True)
                shutil.copytree(old, there)
                rewound += 1
        assert rewound
        await asyncio.to_thread(self._backend.start)


async def connected(mesh: Mesh, program: Program, control: Bus) -> None:
    """Return when everybody is back after a restart of the server."""

    async def check() -> bool:
        try:
            await program.client.request("rewound.texts", timeout=1.0)
            await last_seq(control)
        except Exception:  # noqa: BLE001  (asked again until the end)
            return False
        return True

    await eventually(check, within=AWAY)


async def ends_after(control: Bus, seq: int) -> None:
    async def check() -> bool:
        return await last_seq(control) > seq

    await eventually(check)


async def test_an_owner_that_comes_later_takes_no_new_command_for_settled(
    own_mesh: Mesh, tmp_path: Path
) -> None:
    disk = Disk(own_mesh, tmp_path)
    counting = Counting("rewound")
    running = own_mesh.start(own_mesh.worker(counting.service))
    async with own_mesh.program() as acme, await own_mesh.insider("root") as control:
        owners = Owners(control, "rewound")
        await own_mesh.ready(acme, "rewound.texts")
        await counting.send(acme, "a")
        await counting.has(acme, "a")
        await disk.keep()
        await connected(own_mesh, acme, control)
        (last, *_) = reversed(await counting.send(acme, *"bcdefgh"))
        await counting.has(acme, *"abcdefgh")
        await running.stop()
        await owners.released()
        await disk.rewind("JOURNAL")
        assert await last_seq(control) < last
        again = own_mesh.start(own_mesh.worker(counting.service))
        await connected(own_mesh, acme, control)
        await owners.shared(1)
        (first, *_) = await counting.send(acme, *"ijk")
        assert first > last
        await counting.has(acme, *"abcdefghijk")
        await again.stop()


@pytest.mark.parametrize("failures", [0, 20])
async def test_an_owner_that_was_there_takes_no_new_command_for_settled(
    own_mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    asked = 0

    async def fails_first(bus: Bus, settled: int) -> int:
        nonlocal asked
        asked += 1
        if asked <= failures:
            raise Unavailable("as the test wants it")
        return await restore_end(bus, settled)

    monkeypatch.setattr("tenantry.delivery.owner.restore_end", fails_first)
    disk = Disk(own_mesh, tmp_path)
    counting = Counting("rewound")
    running = own_mesh.start(own_mesh.worker(counting.service))
    async with own_mesh.program() as acme, await own_mesh.insider("root") as control:
        await own_mesh.ready(acme, "rewound.texts")
        await counting.send(acme, "a")
        await counting.has(acme, "a")
        await disk.keep()
        await connected(own_mesh, acme, control)
        (last, *_) = reversed(await counting.send(acme, *"bcdefgh"))
        await counting.has(acme, *"abcdefgh")
        await disk.rewind("JOURNAL")
        await connected(own_mesh, acme, control)
        await ends_after(control, last)
        await counting.send(acme, *"ijk")
        await counting.has(acme, *"abcdefghijk")
        await running.stop()


async def test_an_owner_goes_on_where_the_whole_server_was_set_back(
    own_mesh: Mesh, tmp_path: Path
) -> None:
    disk = Disk(own_mesh, tmp_path)
    counting = Counting("rewound")
    running = own_mesh.start(own_mesh.worker(counting.service))
    async with own_mesh.program() as acme, await own_mesh.insider("root") as control:
        owners = Owners(control, "rewound")
        await own_mesh.ready(acme, "rewound.texts")
        await counting.send(acme, "a")
        await counting.has(acme, "a")
        await owners.shared(1)
        await disk.keep()
        await connected(own_mesh, acme, control)
        (last, *_) = reversed(await counting.send(acme, *"bcdefgh"))
        await counting.has(acme, *"abcdefgh")
        await disk.rewind()
        await connected(own_mesh, acme, control)
        await ends_after(control, last)
        await owners.shared(1)
        await counting.send(acme, *"ijk")
        await counting.has(acme, *"aijk")
        await running.stop()
