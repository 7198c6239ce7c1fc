"""State refuses what a message writes that comes too late."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.context.state import BUCKET, State
from tenantry.context.turn import Turn
from tenantry.errors import LaneLost, Superseded
from tenantry.streams import bucket_config
from tests.unit.bus.station import fresh

At = Callable[..., State]


@pytest.fixture
async def at(bus: Bus) -> At:
    """The state of one tenant and service, as message `seq` sees it."""
    await js.ensure_stream(bus, bucket_config(BUCKET))
    tenant = fresh("tenant")

    def state(seq: int = 0, **options: object) -> State:
        if not seq:
            return State(bus, tenant, "orders")
        turn = Turn(lambda: True, seq=seq, **options)  # type: ignore[arg-type]
        return State(bus, tenant, "orders", turn, turn.check)

    return state


async def test_a_later_message_writes_over_an_earlier_one(at: At) -> None:
    await at(5).put("x", "five")
    await at(6).put("x", "six")
    assert (await at().get("x", str)).value == "six"


async def test_the_same_message_may_write_again(at: At) -> None:
    await at(5).put("x", "one")
    await at(5).put("x", "two")
    assert (await at().get("x", str)).value == "two"


@pytest.mark.parametrize("how", ["put", "get", "delete", "create", "update"])
async def test_an_earlier_message_is_refused_what_a_later_one_has_written(at: At, how: str) -> None:
    revision = await at(6).put("x", "six")
    late = at(5)
    work = {
        "put": lambda: late.put("x", "late"),
        "get": lambda: late.get("x", str),
        "delete": lambda: late.delete("x"),
        "create": lambda: late.create("x", "late"),
        "update": lambda: late.update("x", "late", revision),
    }
    with pytest.raises(Superseded):
        await work[how]()
    assert (await at().get("x", str)).value == "six"


async def test_an_earlier_message_can_write_what_no_later_one_has(at: At) -> None:
    await at(6).put("x", "six")
    await at(5).put("y", "five")
    assert (await at().get("y", str)).value == "five"


async def test_what_a_later_one_deleted_stays_deleted(at: At) -> None:
    await at(5).put("x", "five")
    await at(6).delete("x")
    with pytest.raises(Superseded):
        await at(5).put("x", "late")
    await at(7).put("x", "seven")
    assert (await at().get("x", str)).value == "seven"


async def test_a_request_writes_and_keeps_the_fence(at: At) -> None:
    await at(6).put("x", "six")
    await at().put("x", "by request")
    with pytest.raises(Superseded):
        await at(5).put("x", "late")
    await at(7).put("x", "seven")


async def test_where_no_order_is_declared_nothing_is_refused(at: At) -> None:
    await at(6).put("x", "six")
    await at(5, ordered=False).put("x", "five")
    assert (await at().get("x", str)).value == "five"


async def test_a_new_epoch_may_write_over_everything_of_the_old_one(at: At) -> None:
    await at(900).put("x", "old")
    await at(1, epoch=1).put("x", "replayed")
    with pytest.raises(Superseded):
        await at(901).put("x", "old again")
    assert (await at().get("x", str)).value == "replayed"


async def test_who_has_lost_the_lane_writes_and_reads_nothing(at: At) -> None:
    await at(5).put("x", "five")
    held = [True]
    turn = Turn(lambda: held[0], seq=6)
    mine = at(6)
    lost = State(mine._bucket.bus, mine._prefix.split(".")[0], "orders", turn, turn.check)
    entry = await lost.get("x", str)
    held.clear()
    held.append(False)
    with pytest.raises(LaneLost):
        await lost.update("x", "six", entry.revision)
    with pytest.raises(LaneLost):
        await lost.get("x", str)
    assert (await at().get("x", str)).value == "five"


async def test_namespaces_do_not_see_each_other(at: At) -> None:
    await at(5).put("x", "live")
    shadow = at(5, generation=3)
    assert await shadow.get("x", str) is None
    await shadow.put("x", "shadow")
    assert (await at().get("x", str)).value == "live"


@pytest.mark.parametrize("generation", [0, 3])
async def test_a_namespace_is_cleared_alone(at: At, generation: int) -> None:
    for each in (0, 3):
        await at(5, generation=each).put("a", 1)
        await at(5, generation=each).put("b.c", 2)
    mine, other = at(6, generation=generation), at(6, generation=3 - generation)
    assert await mine.names() == ["a", "b.c"]
    await mine.clear()
    assert await mine.names() == []
    assert await other.names() == ["a", "b.c"]
