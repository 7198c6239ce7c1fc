"""What the catalogue holds of a service, and the digest over what its callers rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import Meta, Struct

from tenantry import Context, Service
from tenantry.messages import Declaration


class Order(Struct):
    """What is ordered."""

    sku: Annotated[str, Meta(max_length=20, description="what it is")]
    count: int = 1


class Placed(Struct):
    """It was ordered."""

    order: Order


async def nothing(_ctx: Context) -> None: ...
async def place(_ctx: Context, order: Order) -> Placed:
    """Place an order."""
    return Placed(order)


def orders(version: str = "1.0.0", **options: Any) -> Service:
    service = Service("orders", version=version, **options)
    service.request("place", public=True)(place)
    service.command("import", timeout=9.0)(nothing)
    service.event("placed", Placed)
    service.on("billing.paid")(nothing)
    return service


# the declaration


def test_it_holds_all_actions() -> None:
    actions = {action.name: action.kind for action in orders().declaration().actions}
    assert actions == {"place": "request", "import": "command", "placed": "event"}


def test_it_holds_what_the_router_needs_of_an_action() -> None:
    place, importing, _ = orders().declaration().actions
    assert (place.public, place.timeout, place.description) == (True, 30.0, "Place an order.")
    assert (importing.public, importing.timeout) == (False, 9.0)


def test_it_holds_name_version_and_what_is_followed() -> None:
    made = orders("2.0.0-rc.1", description="Orders").declaration()
    assert (made.service, made.version) == ("orders", "2.0.0-rc.1")
    assert (made.description, made.follows) == ("Orders", ("billing.paid",))


def test_it_is_read_back_as_it_was() -> None:
    made = orders().declaration()
    assert msgspec.json.decode(msgspec.json.encode(made), type=Declaration) == made


def test_schemas_are_valid_json_schemas() -> None:
    for action in orders().declaration().actions:
        Draft202012Validator.check_schema(action.input)
        Draft202012Validator.check_schema(action.output)


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"sku": "a"}, True),
        ({"sku": "a", "count": 2}, True),
        ({}, False),
        ({"sku": "x" * 21}, False),
    ],
)
def test_the_schema_of_the_input_says_what_fits(body: Any, fits: bool) -> None:
    schema = orders().declaration().actions[0].input
    assert Draft202012Validator(schema).is_valid(body) == fits


def test_the_schema_of_the_output_is_that_of_the_answer() -> None:
    schema = orders().declaration().actions[0].output
    assert Draft202012Validator(schema).is_valid({"order": {"sku": "a"}})
    assert not Draft202012Validator(schema).is_valid({"sku": "a"})


def test_what_answers_nothing_has_no_schema_of_an_answer() -> None:
    assert [action.output for action in orders().declaration().actions[1:]] == [{}, {}]


# the digest


def digest(declare: Callable[[Service], Any], **options: Any) -> str:
    service = Service("orders", **options)
    declare(service)
    return service.declaration().digest


def base(service: Service) -> None:
    service.request("place")(place)
    service.command("import")(nothing)
    service.event("placed", Placed)


def other_order(service: Service) -> None:
    service.event("placed", Placed)
    service.command("import")(nothing)
    service.request("place")(place)


def other_words(service: Service) -> None:
    class Order(Struct):
        """What somebody has ordered."""

        sku: Annotated[str, Meta(max_length=20, description="which", examples=["a"], title="S")]
        count: int = 1

    class Placed(Struct):
        """It was ordered indeed."""

        order: Order

    async def handler(_ctx: Context, order: Order) -> Placed:
        """Place it."""
        return Placed(order)

    # The types are local, where annotations as text could not be resolved.
    handler.__annotations__ = {"order": Order, "return": Placed}
    service.request("place")(handler)
    service.command("import")(nothing)
    service.event("placed", Placed, description="Ordered")


def other_timeouts(service: Service) -> None:
    service.request("place", timeout=1.0)(place)
    service.command("import", timeout=2.0)(nothing)
    service.event("placed", Placed)


def also_following(service: Service) -> None:
    base(service)
    service.on("billing.paid")(nothing)


@pytest.mark.parametrize("same", [other_order, other_words, other_timeouts, also_following])
def test_the_digest_is_that_of_the_contract_alone(same: Callable[[Service], Any]) -> None:
    assert digest(same) == digest(base)


def test_the_digest_does_not_depend_on_version_or_size() -> None:
    assert digest(base, version="9.9.9", concurrency=5, description="x") == digest(base)


class Title(Struct):
    title: str
    description: str = ""


def declared(kind: Any, *, public: bool = False, name: str = "place", request: bool = True) -> str:
    async def handler(_ctx: Context, body: Any) -> None: ...

    handler.__annotations__ = {"body": kind, "return": None}
    service = Service("orders")
    (service.request if request else service.command)(name, public=public)(handler)
    return service.declaration().digest


class Wider(Struct):
    title: str
    description: str = ""
    more: int = 0


class Required(Struct):
    title: str
    description: str


class Renamed(Struct):
    titel: str
    description: str = ""


class OtherDefault(Struct):
    title: str
    description: str = "none"


class Nested(Struct):
    inner: list[Title]


class NestedWider(Struct):
    inner: list[Wider]


def test_each_change_of_a_contract_changes_the_digest() -> None:
    digests = [
        declared(Title),
        declared(Title, public=True),
        declared(Title, name="put"),
        declared(Title, request=False),
        declared(Wider),
        declared(Required),
        declared(Renamed),
        declared(OtherDefault),
        declared(Nested),
        declared(NestedWider),
        declared(Title | None),
        declared(dict[str, int]),
        declared(dict[str, str]),
        declared(list[int]),
        declared(tuple[int, str]),
        declared(tuple[str, int]),
        declared(Annotated[int, Meta(ge=0)]),
        declared(Annotated[int, Meta(ge=1)]),
    ]
    assert len(set(digests)) == len(digests)


def test_a_changed_answer_changes_the_digest() -> None:
    async def other(_ctx: Context, order: Order) -> Order:
        return order

    def changed(service: Service) -> None:
        service.request("place")(other)
        service.command("import")(nothing)
        service.event("placed", Placed)

    assert digest(changed) != digest(base)


def test_an_event_more_changes_the_digest() -> None:
    def changed(service: Service) -> None:
        base(service)
        service.event("shipped", Placed)

    assert digest(changed) != digest(base)


# the lifespan


async def test_without_a_lifespan_there_are_no_resources() -> None:
    async with orders().living() as resources:
        assert resources is None


async def test_the_lifespan_yields_the_resources_and_is_ended() -> None:
    service, told = orders(), []

    @service.lifespan
    async def life() -> AsyncIterator[str]:
        told.append("begin")
        yield "database"
        told.append("end")

    async with service.living() as resources:
        told.append(resources)
    assert told == ["begin", "database", "end"]


async def test_the_lifespan_is_ended_after_a_failure_too() -> None:
    service, told = orders(), []

    @service.lifespan
    async def life() -> AsyncIterator[None]:
        try:
            yield
        finally:
            told.append("end")

    with pytest.raises(RuntimeError, match="inside"):
        async with service.living():
            raise RuntimeError("inside")
    assert told == ["end"]


async def test_each_life_is_a_new_one() -> None:
    service, lives = orders(), []

    @service.lifespan
    async def life() -> AsyncIterator[int]:
        lives.append(1)
        yield len(lives)

    async with service.living() as first, service.living() as second:
        assert (first, second) == (1, 2)
