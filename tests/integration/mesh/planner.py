"""A service that sends the commands of another one later, and cancels them."""

from __future__ import annotations

from msgspec import Struct

from tenantry import Context, Service
from tests.services import Note

SOON = 0.3
"""Seconds: long enough to be stored before it is over."""

FAR = 3600.0
"""Seconds: nothing in a test waits for it."""


class Wish(Struct, frozen=True):
    """What is to be remembered, and when: after so many seconds, or at a time."""

    text: str
    after: float | None = None
    at: float | None = None
    fails: int = 0
    """How many times the handler fails, after it has sent."""


class Planned(Struct, frozen=True):
    """The schedule's id."""

    id: str


class Wishes(Struct, frozen=True):
    """Several, sent by one handler."""

    wishes: tuple[Wish, ...]


def planner(name: str = "planner", to: str = "notes.remember") -> Service:
    """Schedules the command `to`."""
    service = Service(name, version="1.0.0")

    def send(ctx: Context, wish: Wish) -> str:
        if wish.at is not None:
            return ctx.send(to, Note(wish.text), at=wish.at)
        return ctx.send(to, Note(wish.text), after=wish.after or 0.0)

    @service.request("plan", public=True)
    async def plan(ctx: Context, wish: Wish) -> Planned:
        """Schedule one."""
        planned = Planned(send(ctx, wish))
        if wish.fails:
            raise RuntimeError("as asked")
        return planned

    @service.request("plan_all", public=True)
    async def plan_all(ctx: Context, wishes: Wishes) -> list[Planned]:
        """Schedule several, in this order."""
        return [Planned(send(ctx, wish)) for wish in wishes.wishes]

    @service.command("plan_stored", public=True)
    async def plan_stored(ctx: Context, wish: Wish) -> None:
        """Schedule one, as often as this command is delivered."""
        send(ctx, wish)
        if ctx.attempt <= wish.fails:
            raise RuntimeError("as asked")

    @service.request("cancel", public=True)
    async def cancel(ctx: Context, planned: Planned) -> None:
        """Cancel one."""
        ctx.cancel(planned.id)

    @service.request("change_of_mind", public=True)
    async def change_of_mind(ctx: Context, wishes: Wishes) -> None:
        """Schedule several, and cancel the first."""
        ids = [send(ctx, wish) for wish in wishes.wishes]
        ctx.cancel(ids[0])

    return service
