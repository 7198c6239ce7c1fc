"""Lanes: which partitions each reads, and the order that it keeps."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import Context, Service, subjects
from tenantry.bus import Message
from tenantry.runtime.journal import lane_config
from tenantry.runtime.lane import _Owed, _Tenant
from tenantry.streams import JournalLimits, journal_config


async def nothing(_ctx: Context) -> None: ...


def orders() -> Service:
    service = Service("orders")
    service.command("import")(nothing)
    service.on("billing.paid")(nothing)
    service.request("place")(nothing)
    return service


def config(lane: int = 0, lanes: int = 4) -> dict[str, Any]:
    return lane_config("orders", "1.2.3", lane, lanes, orders().durable.values())


# partitions


@pytest.mark.parametrize("lanes", range(1, subjects.PARTITIONS + 1))
def test_the_lanes_read_each_partition_once(lanes: int) -> None:
    read = [
        filter_subject
        for lane in range(lanes)
        for filter_subject in config(lane, lanes)["filter_subjects"]
    ]
    wanted = [
        f"journal.{partition}.*.{name}"
        for partition in range(16)
        for name in ("billing.paid", "orders.import")
    ]
    assert sorted(read) == sorted(wanted)


@pytest.mark.parametrize("lanes", range(1, subjects.PARTITIONS + 1))
def test_no_lane_has_much_more_than_another(lanes: int) -> None:
    sizes = [len(config(lane, lanes)["filter_subjects"]) for lane in range(lanes)]
    assert max(sizes) - min(sizes) <= 2  # one partition, of two actions


def test_requests_are_not_in_the_journal() -> None:
    assert not [name for name in config()["filter_subjects"] if name.endswith(".place")]


def test_a_lane_is_a_durable_consumer_that_pins_one_reader() -> None:
    made = config(lane=2)
    assert made["name"] == made["durable_name"] == "orders-2"
    assert (made["priority_policy"], made["priority_groups"]) == ("pinned_client", ["lane"])


def test_a_lane_gives_up_no_message() -> None:
    made = config()
    assert (made["ack_policy"], made["max_deliver"], made["deliver_policy"]) == (
        "explicit",
        -1,
        "all",
    )


def test_a_lane_says_who_made_it() -> None:
    assert config(lanes=7)["metadata"] == {"tenantry.version": "1.2.3", "tenantry.lanes": "7"}


def test_the_filters_of_a_lane_do_not_depend_on_the_order_of_declaring() -> None:
    handlers = list(orders().durable.values())
    assert lane_config("orders", "1.2.3", 0, 4, reversed(handlers)) == config()


# the journal


def test_a_full_journal_refuses_and_forgets_nothing() -> None:
    made = journal_config(JournalLimits())
    assert (made["discard"], made["retention"], made["storage"]) == ("new", "limits", "file")


def test_the_journal_sorts_by_the_tenant() -> None:
    transform = journal_config(JournalLimits())["subject_transform"]
    assert transform == {
        "src": "tenant.*.*.*",
        "dest": "journal.{{partition(16,1)}}.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}",
    }


def test_limits_of_the_journal_are_in_the_units_of_the_server() -> None:
    made = journal_config(
        JournalLimits(max_bytes=5, max_age=1.5, max_message=7, replicas=3, dedup_window=0.25)
    )
    assert (made["max_bytes"], made["max_msg_size"], made["num_replicas"]) == (5, 7, 3)
    assert (made["max_age"], made["duplicate_window"]) == (1_500_000_000, 250_000_000)


# order within a tenant

LATER = 30.0


def tenant(**owed: float) -> _Tenant:
    """A tenant that is owed sequences, each for so many seconds from now."""
    return _Tenant(owed={int(seq[1:]): after(seconds) for seq, seconds in owed.items()})


def after(seconds: float) -> _Owed:
    message = Message(_client=None, subject="journal.0.acme.a.b")  # type: ignore[arg-type]
    return _Owed(message, time.monotonic() + seconds)


def test_where_nothing_was_given_back_nothing_waits() -> None:
    assert not tenant().must_wait(5)


@pytest.mark.parametrize(("seq", "waits"), [(4, False), (5, False), (6, True), (900, True)])
def test_what_comes_after_one_given_back_waits(seq: int, waits: bool) -> None:
    assert tenant(s5=LATER).must_wait(seq) == waits


def test_what_comes_between_two_given_back_waits_for_the_first() -> None:
    assert tenant(s5=LATER, s9=LATER).must_wait(7)


def test_one_that_stays_away_too_long_is_waited_for_no_more() -> None:
    assert not tenant(s5=-0.01).must_wait(6)


def test_one_that_stays_away_does_not_hide_another() -> None:
    assert tenant(s5=-0.01, s6=LATER).must_wait(7)
    assert not tenant(s5=-0.01, s6=LATER).must_wait(6)


@given(st.dictionaries(st.integers(1, 50), st.booleans()), st.integers(1, 50))
def test_one_waits_exactly_for_the_earlier_ones_still_to_come(
    owed: dict[int, bool], seq: int
) -> None:
    held = _Tenant(owed={s: after(LATER if coming else -1) for s, coming in owed.items()})
    assert held.must_wait(seq) == any(coming and s < seq for s, coming in owed.items())
