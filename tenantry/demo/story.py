"""The demo from beginning to end, on a mesh of its own in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tenantry.control import Control
from tenantry.demo import recovery
from tenantry.demo.checks import Books, check, check_recovery, settled
from tenantry.demo.screen import Screen
from tenantry.demo.shopper import Shopper
from tenantry.errors import SetupError
from tenantry.local import processes
from tenantry.local.server import find_nats_server
from tenantry.local.state import StateFolder

SECONDS = 15.0
"""How long the tenants shop."""

_START = 60.0
_SETTLE = 45.0
_TENANTS = {
    # tenant: plan, requests a second, commands a second; `corner` is far over its 50 a second
    "corner": ("standard", 200.0, 4.0),
    "market": ("premium", 50.0, 8.0),
    "empire": ("business", 90.0, 12.0),
}
_VICTIM = {"bakery": ("premium", 0.0, 0.0)}


async def run(*, seconds: float = SECONDS) -> bool:
    """Tell the story; returns whether every check held."""
    find_nats_server()  # missing, it is said before anything else
    screen = Screen()
    screen.say("starting a mesh: nats-server, control plane, router, 2 orders, 2 ledgers")
    with tempfile.TemporaryDirectory(prefix="tenantry-demo-") as folder:
        async with _mesh(Path(folder)) as state:
            running = state.running()
            if running is None:
                raise SetupError("the mesh says nothing of itself")
            screen.say(f"ready at {running.url}")
            return await _act(screen, state, running.url, Path(folder), seconds)


async def _act(screen: Screen, state: StateFolder, url: str, folder: Path, seconds: float) -> bool:
    plans = {tenant: plan for tenant, (plan, _, _) in _TENANTS.items()}
    everybody = []
    async with await Control.connect(url, creds=state.operator / "creds" / "control.creds") as ctl:
        for tenant, (plan, rate, imports) in {**_TENANTS, **_VICTIM}.items():
            _, text = await ctl.create(tenant, plan=plan)
            creds = folder / f"{tenant}.creds"
            creds.write_text(text)
            everybody.append(Shopper(tenant, creds, url, rate=rate, imports=imports))
    async with contextlib.AsyncExitStack() as stack:
        for shopper in everybody:
            await shopper.connect()
            stack.push_async_callback(shopper.close)
        screen.say(f"{len(everybody)} tenants created and connected with plain NATS clients")
        *shoppers, victim = everybody
        walls = 0
        for shopper, other in zip(shoppers, shoppers[1:] + shoppers[:1], strict=True):
            await shopper.trespass(other.tenant)
            walls += 2
        screen.say(
            f"three tried to read and to write as each other; now they shop, and {victim.tenant} "
            f"imports {recovery.ORDERS} orders"
        )
        async with screen.watching(shoppers, plans):
            await asyncio.gather(
                _accident(screen, state, seconds / 2),
                recovery.fill(victim),
                *(shopper.shop(seconds) for shopper in shoppers),
            )
        recovered = await recovery.act(screen.say, victim, shoppers, state)
        screen.say("they have gone home; waiting until the journal is worked off")
        books = await _settle(shoppers)
    screen.say("done")
    screen.summary(shoppers, plans)
    screen.recovery(recovered, shoppers)
    checks = [*check(shoppers, books, walls), check_recovery(recovered)]
    screen.verdict(checks)
    return all(one.held for one in checks)


async def _accident(screen: Screen, state: StateFolder, after: float) -> None:
    """Kill one orders worker, with no chance to say good-bye."""
    await asyncio.sleep(after)
    running = state.running()
    victims = [
        child
        for child in (running.children if running else ())
        if "orders" in child.name and child.pid is not None
    ]
    if not victims or victims[0].pid is None:
        raise SetupError("no orders worker runs")
    os.kill(victims[0].pid, signal.SIGKILL)
    screen.say(f"[red]kill -9[/red] of {victims[0].name} (pid {victims[0].pid})")


async def _settle(shoppers: list[Shopper]) -> dict[str, Books | None]:
    """Wait until every ledger holds what was promised, or for a while none gets any further."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _SETTLE
    books: dict[str, Books | None] = {}
    while True:
        before = dict(books)
        for shopper in shoppers:
            with contextlib.suppress(Exception):
                books[shopper.tenant] = Books.read(*await shopper.sold())
        done = all(settled(shopper, books.get(shopper.tenant)) for shopper in shoppers)
        if done or loop.time() > end:
            return {shopper.tenant: books.get(shopper.tenant) for shopper in shoppers}
        if books != before:
            end = loop.time() + _SETTLE
        await asyncio.sleep(0.5)


@asynccontextmanager
async def _mesh(folder: Path) -> AsyncIterator[StateFolder]:
    """`tenantry up` as a child process, in a folder of its own, on a free port."""
    shop, root = _shop()
    state = StateFolder(folder / "state")
    command = (sys.executable, "-m", "tenantry", "up", "--port", "0", "--state", str(state.path))
    child = await asyncio.create_subprocess_exec(
        *command,
        *("--replicas", "2"),
        *(f"{shop}.orders:service", f"{shop}.ledger:service"),
        cwd=root,
        stdout=asyncio.subprocess.PIPE,
        stderr=(folder / "up.log").open("wb"),
        preexec_fn=processes.die_with_parent(signal.SIGTERM),
    )
    try:
        assert child.stdout is not None  # noqa: S101  (it is a pipe)
        async with asyncio.timeout(_START):
            line = await child.stdout.readline()
        if not line.startswith(b"ready "):
            raise SetupError(f"the mesh did not start: {_last_line(folder / 'up.log')}")
        yield state
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        await child.wait()


def _shop() -> tuple[str, Path]:
    """The example's package and where it is imported from: a checkout's, or the wheel's copy."""
    package = Path(__file__).parent.parent
    root = Path.cwd() if (package / "examples").is_dir() else package.parent
    return "examples.shop", root


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("tenantry: ") if lines else "it said nothing"
