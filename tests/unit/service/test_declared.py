"""Actions by the catalogue, and events that do not fit the handlers that follow them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from tenantry import Context, Service
from tenantry.bus import Bus
from tenantry.errors import DeclarationError
from tenantry.messages import ActionInfo, Declaration, Kind
from tenantry.runtime.declared import DeclaredActions, Outgoing, WrongKind, misfit
from tenantry.service.handler import schema_of


class Line(msgspec.Struct):
    sku: str
    count: int


class Order(msgspec.Struct):
    id: str
    lines: list[Line]


class LineInWords(msgspec.Struct):
    sku: str
    count: str


class OrderInWords(msgspec.Struct):
    id: str
    lines: list[LineInWords]


class Total(msgspec.Struct):
    id: str
    total: float


class Maybe(msgspec.Struct):
    id: str
    total: float = 0.0


class Whole(msgspec.Struct):
    id: str
    total: int


class Tree(msgspec.Struct):
    leaves: list[Tree] = []


@pytest.mark.parametrize(
    ("takes", "event", "why"),
    [
        (Order, Order, ""),
        (Total, Whole, ""),
        (Whole, Total, "$.total is number, not integer"),
        (Maybe, Order, ""),
        (Total, Order, "$.total is missing"),
        (Total, dict[str, float], ""),
        (OrderInWords, Order, "$.lines[].count is integer, not string"),
        (str, Order, "$ is object, not string"),
        (Any, Order, ""),
        (int | str, int, ""),
        (Tree, Tree, ""),
    ],
)
def test_where_an_event_does_not_fit(takes: Any, event: Any, why: str) -> None:
    assert misfit(schema_of(takes), schema_of(event)) == why


def declared(*services: Service, **versions: Kind) -> DeclaredActions:
    """A catalogue in which `shop` has declared `buy` as this kind in these versions."""
    found = DeclaredActions(Bus([]), services)
    for version, kind in versions.items():
        number = version.removeprefix("v").replace("_", ".")
        action = ActionInfo(name="buy", kind=kind, input=schema_of(Order))
        found._table.rows[f"shop.{number}"] = Declaration(
            service="shop", version=number, actions=(action,)
        )
    return found


def outgoing(found: DeclaredActions) -> tuple[Outgoing, Counter[str]]:
    unknown: Counter[str] = Counter()
    return Outgoing("mine", found, unknown), unknown


def test_what_is_declared_may_be_sent() -> None:
    sent, unknown = outgoing(declared(v1_0_0="command"))
    sent.check("shop.buy", "command")
    assert not unknown


def test_the_newest_version_tells_what_an_action_is() -> None:
    sent, _ = outgoing(declared(v1_9_0="command", v1_10_0="event"))
    with pytest.raises(WrongKind, match="an event"):
        sent.check("shop.buy", "command")


def test_what_nobody_declares_may_be_declared_soon() -> None:
    sent, unknown = outgoing(declared(v1_0_0="command"))
    with pytest.raises(DeclarationError, match="did you mean shop") as caught:
        sent.check("shop.byu", "command")
    assert getattr(caught.value, "retry", True)
    assert unknown == {"shop.byu": 1}


def test_names_that_are_made_up_without_end_are_counted_together() -> None:
    sent, unknown = outgoing(declared())
    for number in range(200):
        with pytest.raises(DeclarationError):
            sent.check(f"shop.a{number}", "command")
    assert len(unknown) == 51
    assert unknown.total() == 200


def follower(event: str, takes: Any) -> Service:
    service = Service("mine")

    async def hear(ctx: Context, body: takes) -> None:  # type: ignore[valid-type]
        pass

    hear.__annotations__ = {"ctx": Context, "body": takes, "return": None}
    service.on(event)(hear)
    return service


@pytest.mark.parametrize(
    ("event", "takes", "said"),
    [
        ("shop.buy", Order, []),
        ("shop.buy", Total, ["event does not fit"]),
        ("shop.byu", Order, ["nobody declares this event"]),
        ("tenants.tenant_deleted", Order, []),
    ],
)
def test_a_follower_that_can_do_nothing_is_warned_of(
    event: str, takes: Any, said: list[str]
) -> None:
    with capture_logs() as logs:
        declared(v1_0_0="event").warn(follower(event, takes))
    assert [line["event"] for line in logs] == said


def test_a_follower_of_what_is_no_event_is_warned_of() -> None:
    with capture_logs() as logs:
        declared(v1_0_0="command").warn(follower("shop.buy", Order))
    assert len(logs) == 1


def test_what_the_process_itself_declares_is_known_at_once() -> None:
    own = follower("shop.buy", Order)
    event = own.event("done", Order)
    found = declared(own)
    action = found.get(f"mine.{event.name}")
    assert action is not None
    assert action.kind == "event"
