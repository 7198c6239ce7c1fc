from __future__ import annotations

from typing import Any

import msgspec

from tenantry.cli import services
from tenantry.messages import ActionInfo, Declaration


def declared(version: str) -> Declaration:
    action = ActionInfo(name="place", kind="request", public=True)
    return Declaration(
        service="orders", version=version, actions=(action,), follows=("billing.paid",)
    )


def answer(version: str, instance: str, *endpoints: dict[str, Any]) -> Any:
    body = {"name": "orders", "id": instance, "version": version, "endpoints": endpoints}
    return msgspec.convert(body, services.Answer)


def test_counts_of_all_instances_are_added_up() -> None:
    one = {"name": "place", "num_requests": 3, "num_errors": 1, "processing_time": 6_000_000}
    two = {"name": "place", "num_requests": 1, "processing_time": 2_000_000, "last_error": "x"}
    lives = [answer("1.0.0", "a", one), answer("1.0.0", "b", two)]
    found = services.merge([declared("1.0.0")], lives, lives)[0]
    place = found.actions[0]
    assert found.instances == ("a", "b")
    assert (place.handled, place.errors, place.average_ms, place.last_error) == (4, 1, 2.0, "x")


def test_versions_are_apart_and_in_semantic_order() -> None:
    known = [declared(version) for version in ("1.10.0", "1.2.0", "1.2.0-rc.1")]
    found = services.merge(known, [answer("1.2.0", "a")], [])
    assert [(each.version, len(each.instances)) for each in found] == [
        ("1.2.0-rc.1", 0),
        ("1.2.0", 1),
        ("1.10.0", 0),
    ]


def test_followed_events_have_counts_too() -> None:
    figures = answer("1.0.0", "a", {"name": "on_billing_paid", "num_requests": 7})
    found = services.merge([declared("1.0.0")], [answer("1.0.0", "a")], [figures])[0]
    assert [(each.name, each.handled) for each in found.actions] == [
        ("place", 0),
        ("on billing.paid", 7),
    ]


def event(service: str, name: str) -> Declaration:
    action = ActionInfo(name=name, kind="event")
    return Declaration(service=service, version="1.0.0", actions=(action,))


def test_a_followed_event_that_nobody_declares_is_warned_of() -> None:
    alone = services.merge([declared("1.0.0")], [], [])[0]
    assert alone.actions[1].warning
    both = services.merge([event("billing", "paid"), declared("1.0.0")], [], [])[1]
    assert not both.actions[1].warning


def test_what_handlers_named_in_vain_is_added_up() -> None:
    told = [answer("1.0.0", name) for name in ("a", "b", "c")]
    for each, unknown in zip(told, ('{"x.y": 1}', '{"x.y": 2, "x.z": 1}', "?"), strict=True):
        each.metadata["unknown"] = unknown
    found = services.merge([declared("1.0.0")], told, told)[0]
    assert found.unknown == {"x.y": 3, "x.z": 1}
    assert [row[3:7] for row in services._rows(found)][2:] == [
        ("x.y", "unknown", "", ""),
        ("x.z", "unknown", "", ""),
    ]


def test_a_service_that_is_not_ours_is_shown_as_it_answers() -> None:
    odd = answer("v2", "a", {"name": "echo", "subject": "echo"})
    found = services.merge([], [odd], [])[0]
    assert (found.service, found.version, found.platform) == ("orders", "v2", True)
    assert found.actions[0].name == "echo"
