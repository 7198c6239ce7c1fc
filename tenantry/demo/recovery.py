"""The second act: one tenant's ledger is corrupted, and recovered while the others shop on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tenantry.demo.shopper import IMPORTED, Shopper
from tenantry.errors import SetupError
from tenantry.local.state import StateFolder

ORDERS = 2000
"""What the victim's ledger has in it."""
ACCIDENT = -1_000_000
"""The wrong correction, in cents."""

_AT_ONCE = 500
_QUIET = 4.0
_SETTLE = 45.0


class Recovery(NamedTuple):
    """What happened; a ledger as its orders and cents, spans by `time.perf_counter`."""

    tenant: str
    before: tuple[int, int]
    corrupted: tuple[int, int]
    after: tuple[int, int]
    quiet: tuple[float, float]
    """Of the others' traffic before, as long as `busy`."""
    busy: tuple[float, float]

    @property
    def window(self) -> float:
        """Length of both spans, seconds."""
        return self.busy[1] - self.busy[0]


async def fill(victim: Shopper) -> None:
    """Give a tenant a past: many orders, in a few commands."""
    for _ in range(ORDERS // _AT_ONCE):
        await victim.command("orders.import", {"orders": [{"sku": IMPORTED}] * _AT_ONCE})


async def act(
    say: Callable[[str], None], victim: Shopper, others: Sequence[Shopper], state: StateFolder
) -> Recovery:
    """Corrupt the victim's ledger and recover it, while the others' traffic goes on."""
    before = await _books(victim, lambda books: books[0] >= ORDERS)
    traffic = [asyncio.create_task(other.shop()) for other in others]
    await asyncio.sleep(_QUIET / 4)  # until it is even
    began = time.perf_counter()
    await asyncio.sleep(_QUIET)
    seq = await victim.command("ledger.correct", {"cents": ACCIDENT, "reason": "a slip"})
    corrupted = await _books(victim, lambda books: books != before)
    say(f"[red]an accident[/red]: {victim.tenant} stores a wrong correction, sequence {seq}")
    start = time.perf_counter()
    await _recover(say, victim.tenant, seq, state)
    end = time.perf_counter()
    after = await victim.sold()
    for other in others:
        other.stop()
    await asyncio.gather(*traffic)
    length = min(end - start, start - began)
    busy, quiet = (start, start + length), (start - length, start)
    return Recovery(victim.tenant, before, corrupted, after, quiet, busy)


async def _recover(say: Callable[[str], None], tenant: str, seq: int, state: StateFolder) -> None:
    """What an operator does: the command itself, beside the mesh."""
    running = state.running()
    if running is None:
        raise SetupError("the mesh is gone")
    command = ("recover", tenant, "--until", str(seq), "--service", "ledger", "--yes")
    say(f"tenantry {' '.join(command)}")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tenantry", *command, "-o", "json"),
        # Named here: else what the environment says would count.
        *("--url", running.url, "--creds", str(state.operator / "creds" / "control.creds")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    if child.returncode:
        raise SetupError(f"the recovery failed: {err.decode(errors='replace').strip()}")
    replay = json.loads(out)[0]["replay"]
    seconds = replay["ended"] - replay["began"]
    say(f"recovered: {replay['handled']} messages handled again in {seconds:.1f} s, then swapped")


async def _books(victim: Shopper, done: Callable[[tuple[int, int]], bool]) -> tuple[int, int]:
    """The ledger when it is so, or gets no further for a while: a check will say so."""
    books = (0, 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE) as limit:
            while not done(now := await victim.sold()):
                if books != now:
                    limit.reschedule(asyncio.get_running_loop().time() + _SETTLE)
                books = now
                await asyncio.sleep(0.1)
            books = now
    return books
