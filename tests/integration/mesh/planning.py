"""What tests ask of the planner, and where to look for what came of it."""

from __future__ import annotations

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tests.integration.mesh.planner import Wish, Wishes
from tests.mesh import Program, journal


async def plan(program: Program, wish: Wish) -> str:
    return str((await program.client.request("planner.plan", wish))["id"])


async def plan_all(program: Program, wishes: list[Wish]) -> list[str]:
    answer = await program.client.request("planner.plan_all", Wishes(tuple(wishes)))
    return [str(each["id"]) for each in answer]


async def remembers(program: Program, texts: list[str], service: str = "notes") -> bool:
    return await program.texts(service) == texts


async def has_stored(control: Bus, tenant: str, name: str, count: int) -> bool:
    return len(await journal(control, tenant, name)) == count


async def has_due(control: Bus, tenant: str, count: int) -> bool:
    return len(await _subjects(control, "TIMERS", f"due.{tenant}.>")) == count


async def nothing_left(control: Bus, tenant: str) -> bool:
    for stream, filter_ in (("SCHEDULES", f"schedule.{tenant}.>"), ("TIMERS", f"*.{tenant}.>")):
        if await _subjects(control, stream, filter_):
            return False
    return True


async def _subjects(control: Bus, stream: str, filter_: str) -> dict[str, int]:
    info = await js.api(control, f"STREAM.INFO.{stream}", {"subjects_filter": filter_})
    return dict(info["state"].get("subjects") or {})
