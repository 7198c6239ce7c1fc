"""What the upgrade reads out of the consumers and cursors of the version before."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.delivery.upgrade import former
from tenantry.messages import Cursor, Open
from tenantry_workers.tenants.upgrade import Row, note_unsettled, sidelined
from tests.former import consumer_config


def info(*, pending: int = 0, waiting: int = 0, pin: str = "", **config: Any) -> dict[str, Any]:
    """What the server says of a consumer that has delivered up to 9 and settled up to 5."""
    names = ("orders", "place"), ("ledger", "closed")
    made = consumer_config("orders", 3, *names, unordered="orders.place", mark=4)
    return {
        "config": made | config,
        "ack_floor": {"stream_seq": 5},
        "delivered": {"stream_seq": 9},
        "num_ack_pending": pending,
        "num_waiting": waiting,
        "priority_groups": [{"group": "lane", "pinned_client_id": pin}],
    }


def test_what_a_consumer_knew_is_read() -> None:
    found = former(info())
    assert found is not None
    assert (found.name, found.reader) == ("orders-3", "orders-read-3")
    assert found.version == "1.2.3"
    assert found.names == ("ledger.closed", "orders.place")
    assert found.unordered == {"orders.place": 4}


def test_what_is_not_acknowledged_is_not_settled() -> None:
    found = former(info(pending=1))
    assert found is not None
    assert found.settled == 5


def test_all_that_was_delivered_is_settled_where_nothing_is_outstanding() -> None:
    found = former(info())
    assert found is not None
    assert found.settled == 9


@pytest.mark.parametrize("more", [{"waiting": 1}, {"pin": "abc"}])
def test_a_consumer_with_a_pull_or_a_pin_is_read(more: dict[str, Any]) -> None:
    found = former(info(**more))
    assert found is not None
    assert found.read


def test_a_consumer_without_pull_and_pin_is_not_read() -> None:
    found = former(info())
    assert found is not None
    assert not found.read


@pytest.mark.parametrize(
    "config",
    [
        {"durable_name": ""},
        {"durable_name": "orders-read-3"},
        {"durable_name": "orders-4"},
        {"durable_name": "ledger-3"},
        {"filter_subjects": ["journal.3.*.orders._knock"]},
        {"filter_subjects": [], "filter_subject": "journal.>"},
        {"filter_subjects": ["journal.3.*.orders.place", "journal.3.*.ledger.closed"]},
    ],
)
def test_another_consumer_is_none_of_the_version_before(config: dict[str, Any]) -> None:
    assert former(info(**config)) is None


# rows


FAILED = Row(next=7, behind=True, failed=2, first_failed=1.0, retry_at=9.0, code="handler_failed")


def test_a_tenant_that_waits_for_a_retry_keeps_its_count_and_code() -> None:
    assert sidelined(FAILED, replays=False) == Open(
        next=7, why="failed", failed=2, first_failed=1.0, retry_at=9.0, code="handler_failed"
    )


def test_a_dead_letter_that_could_not_be_written_waits_as_before() -> None:
    row = Row(next=7, behind=True, retry_at=9.0, code="handler_failed")
    found = sidelined(row, replays=False)
    assert found == Open(next=7, why="failed", retry_at=9.0, code="handler_failed")


@pytest.mark.parametrize(("replays", "why"), [(False, "backlog"), (True, "replay")])
def test_a_tenant_apart_without_a_failure_has_a_backlog_or_a_replay(
    replays: bool, why: Any
) -> None:
    assert sidelined(Row(next=7, behind=True), replays=replays) == Open(next=7, why=why)


def test_a_row_keeps_which_state_is_live() -> None:
    row = Row(next=7, behind=True, epoch=2, generation=3, former=1)
    assert row.cursor == Cursor(epoch=2, generation=3, former=1)


# what lies between a consumer's floor and the tenant that is furthest


def noted(*messages: tuple[str, str, int], rows: dict[str, Row] | None = None) -> dict[str, Open]:
    """The rows of a checkpoint after these messages: tenant, name and sequence of each."""
    found = former(info(pending=1))
    assert found is not None
    opened: dict[str, Open] = {}
    for tenant, name, seq in messages:
        note_unsettled(opened, found, rows or {}, f"journal.3.{tenant}.{name}", seq)
    return opened


def test_a_tenant_goes_on_with_its_first_message_beyond_the_floor() -> None:
    opened = noted(("acme", "ledger.closed", 6), ("acme", "ledger.closed", 8))
    assert opened == {"acme": Open(next=6)}


def test_what_a_row_says_is_settled_is_left_out() -> None:
    messages = ("acme", "ledger.closed", 6), ("acme", "ledger.closed", 7)
    assert noted(*messages, rows={"acme": Row(next=8)}) == {}
    assert noted(*messages, rows={"acme": Row(next=7)}) == {"acme": Open(next=7)}


def test_an_unordered_message_is_noted_by_itself() -> None:
    opened = noted(("acme", "orders.place", 6), ("acme", "orders.place", 8))
    assert opened == {"acme#6": Open(next=6), "acme#8": Open(next=8)}


def test_an_unordered_message_is_noted_whatever_the_row_says() -> None:
    assert noted(("acme", "orders.place", 6), rows={"acme": Row(next=9)})


def test_what_was_sent_before_an_action_became_unordered_goes_in_order() -> None:
    assert noted(("acme", "orders.place", 4)) == {"acme": Open(next=4)}


def test_very_many_unordered_messages_share_a_row_for_each_tenant() -> None:
    opened = noted(*(("acme", "orders.place", seq) for seq in range(5, 1_000)))
    assert len(opened) == 257
    assert opened["acme#"] == Open(next=261)


def test_what_the_service_does_not_handle_is_left_out() -> None:
    assert noted(("acme", "orders.other", 6), ("_0", "orders._knock", 7)) == {}
