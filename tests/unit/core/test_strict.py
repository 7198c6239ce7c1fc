"""Fields that a type does not declare, wherever they are in a body."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

import pytest
from msgspec import Meta, Struct

from tenantry.errors import BadMessage
from tenantry.wire.codec import Decoder


class Item(Struct, frozen=True):
    sku: str
    quantity: int = 1


class Card(Struct, tag=True):
    number: str = ""


class Invoice(Struct, tag="invoice"):
    days: int = 30


@dataclasses.dataclass
class Place:
    x: int = 0


class Size(TypedDict, total=False):
    width: int


class Pair(Struct, array_like=True):
    first: Item
    second: int = 0


class Order(Struct, rename="camel"):
    items: list[Item] = []
    by_name: dict[str, Item] = {}
    first_two: tuple[Item, int] | None = None
    paid_by: Card | Invoice | None = None
    either: Item | list[Item] | None = None
    place: Place | None = None
    size: Size | None = None
    children: list[Order] = []
    named: Annotated[Item | None, Meta(title="named")] = None
    pair: Pair | None = None
    free: Any = None


ITEM = b'{"sku": "A", "quantity": 2}'
WRONG = b'{"sku": "A", "quantty": 2}'
PLACES = {
    b'{"byName": {"a": %s}}': "$.byName.a",
    b'{"items": [{"sku": "A"}, %s]}': "$.items[1]",
    b'{"firstTwo": [%s, 1]}': "$.firstTwo[0]",
    b'{"either": %s}': "$.either",
    b'{"either": [%s]}': "$.either[0]",
    b'{"children": [{"children": [{"named": %s}]}]}': "$.children[0].children[0].named",
}
OTHERS = {
    b'{"by_name": {}}': "$",
    b'{"paidBy": {"type": "Card", "days": 1}}': "$.paidBy",
    b'{"paidBy": {"type": "invoice", "number": "1"}}': "$.paidBy",
    b'{"place": {"y": 1}}': "$.place",
    b'{"size": {"height": 1}}': "$.size",
}
FITTING = [
    b"",
    b"{}",
    b'{"paidBy": {"type": "Card", "number": "1"}, "place": {"x": 1}, "size": {"width": 1}}',
    b'{"paidBy": null, "free": {"any": {"thing": 1}}, "pair": [{"sku": "A"}, 1]}',
]


def refused(body: bytes, kind: Any = Order) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        Decoder(kind, strict=True)(body)
    return caught.value


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_field_is_refused_wherever_it_is(place: bytes) -> None:
    error = refused(place % WRONG)
    assert (error.path, error.hint) == (PLACES[place], "it may have sku, quantity")
    assert error.message == "Object contains unknown field `quantty`"


@pytest.mark.parametrize("body", OTHERS)
def test_it_is_refused_in_every_kind_of_object(body: bytes) -> None:
    assert refused(body).path == OTHERS[body]


@pytest.mark.parametrize("body", [*FITTING, *(place % ITEM for place in PLACES)])
def test_what_fits_is_taken(body: bytes) -> None:
    assert Decoder(Order, strict=True)(body) == Decoder(Order)(body)


@pytest.mark.parametrize("body", [*OTHERS, *(place % WRONG for place in PLACES)])
def test_unknown_fields_pass_where_that_is_wanted(body: bytes) -> None:
    assert isinstance(Decoder(Order)(body), Order)


@pytest.mark.parametrize("kind", [Any, dict[str, Any], dict[str, int], list[int], int | None])
def test_a_type_without_fields_knows_none_that_is_wrong(kind: Any) -> None:
    body = {list[int]: b"[1]", int | None: b"1"}.get(kind, b'{"a": 1}')
    assert Decoder(kind, strict=True)(body) == Decoder(kind)(body)


def test_a_field_of_a_flat_body_is_refused_too() -> None:
    assert refused(WRONG, Item).path == "$"


def test_what_does_not_fit_is_told_first() -> None:
    assert refused(b'{"sku": 1, "quantty": 2}', Item).path == "$.sku"


def test_a_log_does_not_repeat_the_name_of_the_field() -> None:
    assert "quantty" not in refused(WRONG, Item).logged
