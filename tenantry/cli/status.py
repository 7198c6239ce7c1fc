"""`tenantry status`: the mesh of a state folder, process by process, and whether it answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import msgspec

from tenantry.bus import Bus
from tenantry.cli import loop, options, output, services
from tenantry.cli.options import Output
from tenantry.errors import TenantryError
from tenantry.journal import health
from tenantry.journal.health import JournalHealth
from tenantry.local import valkey
from tenantry.local.state import DEFAULT, ChildStatus, Running, StateFolder


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of NATS, the journal and the instances of the control plane's services now."""

    nats: bool = False
    routers: int = 0
    tenants: int = 0
    clocks: dict[str, float] = {}
    """Instances that take no requests since their clocks are off, as `<service>/<id>`, with the
    seconds by which they are ahead of nats-server's; they are not counted above."""
    redis: bool | None = None
    """Whether the Valkey that was started here answers; None where none was."""
    journal: JournalHealth | None = None
    """The result of storing a message in the journal just now; None where NATS is away."""
    why: str = ""

    @property
    def good(self) -> bool:
        """Tell whether everything that a mesh needs answers, and the journal takes commands."""
        journal = self.journal is not None and self.journal.good
        answers = self.nats and self.routers > 0 and self.tenants > 0
        return answers and journal and not self.clocks


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What `status -o json` prints."""

    running: bool
    state_folder: str
    url: str = ""
    redis: str = ""
    state: str = "stopped"
    supervisor: int | None = None
    uptime: float = 0.0
    health: Health = Health()
    children: tuple[ChildStatus, ...] = ()


def status(*, form: Output = "table", state: options.State = DEFAULT) -> int:
    """Show what runs here and whether it answers.

    The exit code is 1 when nothing runs, when NATS, the routers or the
    tenants worker do not answer, when the journal does not store a message,
    when it is full, so that commands are refused, or when the clock of a
    process is more than 30 s off that of NATS: it takes no requests.
    """
    folder = StateFolder(state)
    running = folder.running() if folder.in_use() else None
    if running is None:
        found = Status(running=False, state_folder=str(folder.path))
    else:
        found = Status(
            running=True,
            state_folder=str(folder.path),
            url=running.url,
            redis=running.redis,
            state=running.state,
            supervisor=running.supervisor,
            uptime=round(time.time() - running.started, 1),
            health=loop.run(_health(folder, running)),
            children=running.children,
        )
    if form == "json":
        output.json(found)
    else:
        _print(found)
    return 0 if found.health.good else 1


async def _health(folder: StateFolder, running: Running) -> Health:
    creds = folder.operator / "creds" / "control.creds"
    own = valkey.url_of(folder.path)
    redis = None if own is None else await valkey.answers(own)
    try:
        async with await Bus.connect(
            running.url, creds=creds, name="tenantry-status", patience=2.0
        ) as bus:
            answers, journal = await asyncio.gather(services.alive(bus), _journal(bus))
    except TenantryError as error:
        return Health(redis=redis, why=error.message)
    clocks = {
        f"{each.name}/{each.id}": float(each.metadata["clock"])
        for each in answers
        if "clock" in each.metadata
    }
    counts = Counter(each.name for each in answers if f"{each.name}/{each.id}" not in clocks)
    return Health(
        nats=True,
        routers=counts["router"],
        tenants=counts["tenants"],
        clocks=clocks,
        journal=journal,
        redis=redis,
    )


async def _journal(bus: Bus) -> JournalHealth:
    try:
        return await health.probe(bus)
    except TenantryError as error:
        return JournalHealth(stores=False, why=error.message)


def _stored(journal: JournalHealth | None) -> str:
    """Say whether the journal stores, and how much of it is used."""
    if journal is None:
        return "no"
    if not journal.stores:
        return f"no ({journal.why})"
    if journal.limit <= 0:
        return "yes"
    used = f"{100 * journal.used / journal.limit:.0f} % full"
    return f"yes ({used}: commands are refused)" if journal.full else f"yes ({used})"


def _redis(found: Status) -> str:
    """Where the routers share what they count, and what is known of it."""
    if not found.redis:
        return "no Redis (each router counts alone)"
    if found.health.redis is None:
        return f"Redis at {found.redis} (not asked)"
    return f"Valkey {output.text(found.health.redis)}"


def _print(found: Status) -> None:
    if not found.running:
        output.line(f"nothing runs in {found.state_folder}")
        return
    seen = found.health
    output.line(
        f"{found.url}, {found.state}, supervisor {found.supervisor}, "
        f"up {output.duration(found.uptime)}"
    )
    output.line(
        f"answers: NATS {output.text(seen.nats)}, routers {seen.routers}, "
        f"tenants {seen.tenants}, {_redis(found)}, journal stores {_stored(seen.journal)}"
        + (f" ({seen.why})" if seen.why else "")
    )
    for name, ahead in seen.clocks.items():
        side = "ahead of" if ahead > 0 else "behind"
        output.line(
            f"{name}: its clock is {abs(ahead):g} s {side} that of NATS, so it takes no requests; "
            "set it, by NTP"
        )
    output.line(f"logs: {Path(found.state_folder) / 'logs'}")
    now = time.time()
    rows = [
        (
            child.name,
            child.state,
            child.pid,
            child.restarts,
            output.duration(now - child.started) if child.pid and child.started else "",
            child.why,
        )
        for child in found.children
    ]
    output.table(("name", "state", "pid", "restarts", "uptime", "why"), rows)
