"""What a service may declare: each mistake is found when its module is imported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from tenantry import Context, Retry, Service, Worker
from tenantry.errors import DeclarationError
from tenantry.messages import Empty


class Order(Struct):
    """What is ordered.

    And more of it.
    """

    sku: str


class Placed(Struct):
    sku: str


class Odd:
    """Nothing that JSON could carry."""


async def nothing(_ctx: Context) -> None: ...
async def place(_ctx: Context, order: Order) -> Order:
    """Place an order.

    The rest is for readers of the code.
    """
    return order


@pytest.fixture
def service() -> Service:
    return Service("orders", version="1.2.3")


def refuses(what: str) -> Any:
    return pytest.raises(DeclarationError, match=what)


# the service itself


@pytest.mark.parametrize("name", ["", "Orders", "or-ders", "1orders", "orders.eu", "*", "a" * 64])
def test_a_bad_name_of_a_service_is_refused(name: str) -> None:
    with refuses("valid name of a service"):
        Service(name)


@pytest.mark.parametrize(
    "version", [1, None, "", "1", "1.0", "v1.0.0", "1.0.0+x", "1.0.0-RC1", "01.0.0"]
)
def test_a_bad_version_is_refused(version: Any) -> None:
    with refuses("is not a version"):
        Service("orders", version=version)


@pytest.mark.parametrize("concurrency", [0, -5, "8", None])
def test_a_service_that_could_handle_nothing_is_refused(concurrency: Any) -> None:
    with refuses("concurrency must be at least 1"):
        Service("orders", concurrency=concurrency)


# names


@pytest.mark.parametrize("name", ["", "Place", "place-now", "orders.place", "*", ">", "9", "a_"])
@pytest.mark.parametrize("kind", ["request", "command"])
def test_a_bad_name_of_an_action_is_refused(service: Service, kind: str, name: str) -> None:
    with refuses("valid name of an action"):
        getattr(service, kind)(name)


@pytest.mark.parametrize("name", ["", "Placed", "orders.placed", "*"])
def test_a_bad_name_of_an_event_is_refused(service: Service, name: str) -> None:
    with refuses("valid name of an event"):
        service.event(name, Placed)


@pytest.mark.parametrize("first", ["request", "command", "event"])
@pytest.mark.parametrize("second", ["request", "command", "event"])
def test_a_name_is_given_once(service: Service, first: str, second: str) -> None:
    declare(service, first)
    with refuses("orders declares same twice"):
        declare(service, second)


def declare(service: Service, kind: str) -> None:
    if kind == "event":
        service.event("same", Placed)
    else:
        getattr(service, kind)("same")(nothing)


# signatures


def test_a_handler_is_async(service: Service) -> None:
    def handler(_ctx: Context) -> None: ...

    with refuses(r"handler must be an async function"):
        service.request("place")(handler)  # type: ignore[type-var]


def test_an_async_generator_is_no_handler(service: Service) -> None:
    async def handler(_ctx: Context) -> Any:
        yield

    with refuses("has a `yield`") as caught:
        service.request("place")(handler)
    assert "`return`" in caught.value.hint


async def takes_none() -> None: ...
async def takes_three(_ctx: Context, _order: Order, _more: int) -> None: ...
async def takes_any(*_all: Order) -> None: ...
async def takes_more(_ctx: Context, *_orders: Order) -> None: ...
async def takes_named(_ctx: Context, *, order: Order) -> None: ...
async def takes_fields(_ctx: Context, **order: Order) -> None: ...


@pytest.mark.parametrize(
    "handler", [takes_none, takes_three, takes_any, takes_more, takes_named, takes_fields]
)
def test_a_handler_takes_a_context_and_perhaps_a_body(
    service: Service, handler: Callable[..., Any]
) -> None:
    with refuses(rf"{handler.__name__} takes ") as caught:
        service.request("place")(handler)
    assert "(ctx, order)" in caught.value.hint


def test_a_body_has_a_type(service: Service) -> None:
    async def handler(_ctx, order): ...  # type: ignore[no-untyped-def]

    with refuses("the body has no type"):
        service.request("place")(handler)


async def takes_missing(_ctx: Context, order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def takes_hidden(_ctx: Context, order: functools.Missing) -> None: ...  # type: ignore[name-defined]
async def takes_garbage(_ctx: Context, order: "1 +") -> None: ...  # type: ignore[valid-type]  # noqa: F722


@pytest.mark.parametrize("handler", [takes_missing, takes_hidden, takes_garbage])
def test_a_type_that_cannot_be_found_is_refused(
    service: Service, handler: Callable[..., Any]
) -> None:
    with refuses(handler.__name__) as caught:
        service.request("place")(handler)
    assert "importable" in caught.value.hint


async def takes_odd(_ctx: Context, order: Odd) -> None: ...
async def answers_odd(_ctx: Context) -> Odd: ...  # type: ignore[empty-body]
async def takes_odd_inside(_ctx: Context, order: dict[str, list[Odd]]) -> None: ...
async def takes_complex(_ctx: Context, order: complex) -> None: ...


@pytest.mark.parametrize("handler", [takes_odd, answers_odd, takes_odd_inside, takes_complex])
def test_a_type_that_json_cannot_carry_is_refused(
    service: Service, handler: Callable[..., Any]
) -> None:
    with refuses(handler.__name__) as caught:
        service.request("place")(handler)
    assert "msgspec.Struct" in caught.value.hint


def test_an_event_that_json_cannot_carry_is_refused(service: Service) -> None:
    with refuses(r"orders\.placed"):
        service.event("placed", Odd)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "5s", None])
@pytest.mark.parametrize("kind", ["request", "command"])
def test_a_timeout_is_positive_and_ends(service: Service, kind: str, timeout: Any) -> None:
    with refuses("the timeout must be a positive number of seconds"):
        getattr(service, kind)("place", timeout=timeout)(nothing)


def test_a_policy_of_retries_is_one(service: Service) -> None:
    with refuses("says not how to retry"):
        service.command("place", retry=3)(nothing)  # type: ignore[arg-type]
    with refuses("can't be followed"):
        Retry(tries="3")  # type: ignore[arg-type]


@pytest.mark.parametrize("event", [nothing, None])
def test_a_follower_names_its_event(service: Service, event: Any) -> None:
    with refuses("is no event"):
        service.on(event)


def test_a_lifespan_is_an_async_generator(service: Service) -> None:
    async def returns() -> None: ...

    def yields() -> Any:
        yield

    for function in (returns, yields):
        with refuses("must be an async generator"):
            service.lifespan(function)  # type: ignore[arg-type]


def test_a_worker_takes_no_service_that_handles_nothing(service: Service) -> None:
    with refuses("orders handles nothing"):
        Worker([service], servers="nats://127.0.0.1:1")
    service.request("place")(nothing)
    Worker([service], servers="nats://127.0.0.1:1")


def test_a_command_has_no_answer(service: Service) -> None:
    with refuses("a command has no answer"):
        service.command("place")(place)


def test_a_follower_has_no_answer(service: Service) -> None:
    with refuses("an event has no answer"):
        service.on("billing.paid")(place)


def test_what_was_refused_is_not_declared(service: Service) -> None:
    with refuses("a command has no answer"):
        service.command("place")(place)
    service.request("place")(place)
    assert list(service.handlers) == ["place"]


# what is read of a signature


def test_a_handler_is_handed_back_as_it_was(service: Service) -> None:
    assert service.request("place")(place) is place


def test_types_and_description_come_from_the_function(service: Service) -> None:
    service.request("place")(place)
    handler = service.handlers["place"]
    assert (handler.input, handler.output, handler.description) == (Order, Order, "Place an order.")


def test_without_a_body_the_input_is_empty(service: Service) -> None:
    service.request("nothing")(nothing)
    handler = service.handlers["nothing"]
    assert (handler.input, handler.takes_body) == (Empty, False)


def test_a_method_serves_too(service: Service) -> None:
    class Orders:
        async def place(self, _ctx: Context, order: Order) -> Order:
            return order

    service.request("place")(Orders().place)
    assert service.handlers["place"].input is Order


def test_a_wrapped_function_keeps_its_signature(service: Service) -> None:
    @functools.wraps(place)
    async def wrapped(*args: Any) -> Any:
        return await place(*args)

    service.request("place")(wrapped)
    assert service.handlers["place"].input is Order


def test_nothing_is_public_that_does_not_say_so(service: Service) -> None:
    service.request("a")(place)
    service.command("b")(nothing)
    service.request("c", public=True)(place)
    assert [h.public for h in service.handlers.values()] == [False, False, True]


def test_an_event_is_handed_out_to_emit(service: Service) -> None:
    event = service.event("placed", Placed)
    assert (event.service, event.name, event.type) == ("orders", "placed", Placed)


def test_the_description_of_an_event_is_that_of_its_type(service: Service) -> None:
    assert service.event("placed", Order).description == "What is ordered."


def test_an_event_may_have_a_description_of_its_own(service: Service) -> None:
    assert service.event("placed", Order, description="Ordered").description == "Ordered"


# following


@pytest.mark.parametrize(
    "event", ["", "billing", "billing.", "billing.paid.now", "billing.*", "*.x"]
)
def test_what_is_no_event_cannot_be_followed(service: Service, event: str) -> None:
    with refuses("does not name an action"):
        service.on(event)(nothing)


def test_an_event_is_followed_once(service: Service) -> None:
    service.on("billing.paid")(nothing)
    with refuses(r"orders follows billing\.paid twice"):
        service.on("billing.paid")(nothing)


def test_an_event_is_followed_by_name_or_as_it_was_declared(service: Service) -> None:
    other = Service("billing").event("paid", Placed)
    service.on(other)(nothing)
    assert list(service.followers) == ["billing.paid"]


def test_a_service_may_follow_its_own_event(service: Service) -> None:
    service.on(service.event("placed", Placed))(nothing)
    assert list(service.followers) == ["orders.placed"]


def test_a_follower_knows_whose_event_it_handles(service: Service) -> None:
    service.on("billing.paid")(nothing)
    assert service.followers["billing.paid"].name == "billing.paid"


def test_commands_and_followed_events_are_durable(service: Service) -> None:
    service.request("ask")(place)
    service.command("import")(nothing)
    service.on("billing.paid")(nothing)
    assert set(service.durable) == {"orders.import", "billing.paid"}


# platform services


@pytest.mark.parametrize(
    "declare",
    [lambda service: service.command("import"), lambda service: service.on("billing.paid")],
)
def test_a_platform_service_handles_only_requests(declare: Callable[[Service], Any]) -> None:
    with refuses("a platform service handles only requests"):
        declare(Service("tenants", platform=True))


def test_a_platform_service_has_requests() -> None:
    service = Service("tenants", platform=True)
    service.request("show")(nothing)
    assert list(service.handlers) == ["show"]


# answers


async def answers_maybe(_ctx: Context) -> Order | None:
    return None


async def answers_any(_ctx: Context) -> Any: ...
async def answers_list(_ctx: Context) -> list[Order]:
    return []


@pytest.mark.parametrize(
    ("handler", "good"),
    [
        (place, Order("a")),
        (nothing, None),
        (answers_maybe, None),
        (answers_maybe, Order("a")),
        (answers_any, {"a": 1}),
        (answers_list, [Order("a")]),
    ],
)
def test_an_answer_of_the_declared_type_is_fine(
    service: Service, handler: Callable[..., Any], good: Any
) -> None:
    service.request("ask")(handler)
    service.handlers["ask"].check_output(good)


@pytest.mark.parametrize(
    ("handler", "bad"),
    [
        (place, None),
        (place, {"sku": "a"}),
        (place, Placed("a")),
        (nothing, 0),
        (nothing, Order("a")),
        (answers_maybe, Placed("a")),
        (answers_list, Order("a")),
    ],
)
def test_an_answer_of_another_type_is_a_mistake(
    service: Service, handler: Callable[..., Any], bad: Any
) -> None:
    service.request("ask")(handler)
    with pytest.raises(TypeError, match=r"orders\.ask declares"):
        service.handlers["ask"].check_output(bad)
