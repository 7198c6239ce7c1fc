from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import re
import typing
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from tenantry.errors import BadMessage
from tenantry.wire import codec
from tenantry.wire.codec import Decoder


class Item(Struct, frozen=True):
    sku: str
    count: Annotated[int, Meta(ge=1)] = 1


class Order(Struct, frozen=True):
    items: tuple[Item, ...] = ()
    state: Literal["open", "closed"] = "open"
    notes: dict[str, int] = {}


class Strict(Struct, forbid_unknown_fields=True):
    name: str = ""


orders = st.builds(
    Order,
    st.lists(st.builds(Item, st.text(), st.integers(1, 2**60))).map(tuple),
    st.sampled_from(["open", "closed"]),
    st.dictionaries(st.text(), st.integers(-(2**60), 2**60), max_size=3),
)


def refused(body: bytes, kind: Any = Order) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        Decoder(kind)(body)
    return caught.value


@given(orders)
def test_what_is_encoded_is_decoded(order: Order) -> None:
    assert Decoder(Order)(codec.encode(order)) == order


def test_an_empty_body_is_an_empty_object() -> None:
    assert Decoder(Order)(b"") == Order()


def test_an_empty_body_lacks_what_is_required() -> None:
    assert "sku" in refused(b"", Item).message


def test_unknown_fields_are_ignored() -> None:
    assert Decoder(Item)(b'{"sku": "a", "new": {"x": 1}}') == Item("a")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"7", "$"),
        (b"[]", "$"),
        (b"null", "$"),
        (b'{"state": "lost"}', "$.state"),
        (b'{"items": {}}', "$.items"),
        (b'{"items": [{"sku": "a"}, {"sku": 5}]}', "$.items[1].sku"),
        (b'{"items": [{}]}', "$.items[0]"),
        (b'{"items": [{"sku": "a", "count": 0}]}', "$.items[0].count"),
        (b'{"notes": {"x": "y"}}', "$.notes[...]"),
        (b'{"notes": {"x": 1e999}}', "$.notes[...]"),
    ],
)
def test_the_path_of_the_fault_is_told(body: bytes, path: str) -> None:
    assert refused(body).path == path


def test_the_message_does_not_repeat_the_path() -> None:
    assert refused(b'{"state": 5}').message == "Expected `str`, got `int`"


def test_what_the_sender_wrote_is_not_taken_for_the_path() -> None:
    assert refused(b'{"state": "x - at `$.items`"}').path == "$.state"


@pytest.mark.parametrize("text", ["x - at `$.y", "x - at `y`", "- at `$"])
def test_what_the_sender_wrote_stays_in_the_text(text: str) -> None:
    refusal = refused(msgspec.json.encode(text), Literal["a"])
    assert refusal.path == "$"
    assert text in refusal.message


def test_a_long_value_is_not_repeated_whole() -> None:
    refusal = refused(b'{"state": "' + b"x" * 100_000 + b'"}')
    assert refusal.path == "$.state"
    assert len(refusal.message) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"items": [',
        b"{} {}",
        b"not json",
        b"\xff",
        b'{"state": "\xff"}',
        b'{"x": "\xc3"}',
        b'{"x": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\0",
        b"{'a': 1}",
        b'{"a": NaN}',
        b" ",
    ],
)
def test_what_is_not_json_is_refused_with_a_hint(body: bytes) -> None:
    refusal = refused(body, Any)
    assert refusal.hint
    assert refusal.path == "$"


@pytest.mark.parametrize("unit", [b"[", b'{"items":', b'{"a":', b'[{"b":'])
@pytest.mark.parametrize("kind", [Order, Any, dict[str, Any]])
def test_a_bomb_of_brackets_is_refused(unit: bytes, kind: Any) -> None:
    refused(unit * 50_000, kind)


@pytest.mark.parametrize("kind", [Order, Any, Strict, list[int], Literal["a"], int | str])
@given(body=st.binary(max_size=40))
def test_no_body_raises_anything_else(kind: Any, body: bytes) -> None:
    with contextlib.suppress(BadMessage):
        Decoder(kind)(body)


# classes


class Shape(TypedDict):
    name: str


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Item, Item("a"), {"sku": "a"}),
        (Item | None, None, "a"),
        (Item | None, Item("a"), "a"),
        (typing.Optional[Item], Item("a"), 5),  # noqa: UP045  (both ways to write it)
        (None, None, 0),
        (type(None), None, False),
        (int, 5, "5"),
        (float, 5, "5"),
        (float, 5.5, None),
        (Annotated[int, Meta(ge=0)], 5, "5"),
        (Annotated[Item | None, "x"], None, 5),
        (list[Item], [], ()),
        (tuple[int, ...], (), []),
        (dict[str, Any], {}, []),
        (Sequence[int], [1], 1),
        (collections.abc.Mapping[str, int], {}, []),
        (Colour, Colour.RED, "red"),
        (msgspec.Raw, msgspec.Raw(b"1"), b"1"),
    ],
)
def test_values_of_a_type_are_told_from_others(kind: Any, good: Any, bad: Any) -> None:
    assert isinstance(good, codec.classes(kind))
    assert not isinstance(bad, codec.classes(kind))


@pytest.mark.parametrize("kind", [Any, Shape, Literal["a"], NewType("Sku", str), Any | None])
@pytest.mark.parametrize("value", [None, "a", {"name": "x"}])
def test_a_type_without_classes_takes_all(kind: Any, value: Any) -> None:
    assert isinstance(value, codec.classes(kind))


@dataclasses.dataclass
class Point:
    x: float | None = None


class Priced(Struct):
    price: Any = None
    note: str | None = None


@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda number: number, "$"),
        (lambda number: [None, number], "$[1]"),
        (lambda number: {"a": {"b": (1.0, number)}}, "$.a.b[1]"),
        (lambda number: Priced([Point(1.0), Point(number)]), "$.price[1].x"),
        (lambda number: {"big": 2**70, "x": number}, "$.x"),
    ],
)
def test_what_json_has_no_number_for_is_refused(number: float, make: Any, path: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(path)} is NaN or infinite"):
        codec.encode(make(number))


@pytest.mark.parametrize(
    "value",
    [
        None,
        Priced(1.5),
        Priced([1.5, None, Point(), {"x": None}], "null"),
        Priced(msgspec.Raw(b"null")),
        Priced(b"\xcb\x7f\xf8\0\0"),
        [None, 2**70],
        1.7976931348623157e308,
    ],
)
def test_what_is_null_and_finite_is_encoded(value: Any) -> None:
    assert codec.encode(value) == msgspec.json.encode(value)
