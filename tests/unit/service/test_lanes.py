"""Lanes: which partitions each reads, and the order that it keeps."""

from __future__ import annotations

from typing import Any

from tenantry import Context, Service
from tenantry.runtime.journal import Unordered, lane_config, names_of
from tenantry.streams import JournalLimits, journal_config


async def nothing(_ctx: Context) -> None: ...


def orders() -> Service:
    service = Service("orders")
    service.command("import")(nothing)
    service.on("billing.paid")(nothing)
    service.request("place")(nothing)
    return service


def config(partition: int = 0) -> dict[str, Any]:
    names = [(each.service, each.action) for each in orders().durable.values()]
    return lane_config("orders", "1.2.3", partition, names)


# partitions


def test_a_lane_reads_one_partition() -> None:
    assert config(3)["filter_subjects"] == [
        "journal.3.*.billing.paid",
        "journal.3.*.orders.import",
        "journal.3.*.orders._knock",
    ]


def test_what_a_lane_delivers_can_be_read_from_it() -> None:
    assert names_of(config()) == {"billing.paid", "orders.import"}


def test_requests_are_not_in_the_journal() -> None:
    assert not [name for name in config()["filter_subjects"] if name.endswith(".place")]


def test_a_lane_is_a_durable_consumer_that_pins_one_reader() -> None:
    made = config(2)
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
    assert config()["metadata"]["tenantry.version"] == "1.2.3"


def test_a_lane_remembers_what_is_unordered_and_since_when() -> None:
    unordered = Unordered(frozenset({"orders.import", "billing.paid"}), 17)
    assert Unordered.of(lane_config("orders", "1.2.3", 0, [], unordered)) == unordered
    assert Unordered.of(config()) == Unordered()


def test_the_filters_of_a_lane_do_not_depend_on_the_order_of_declaring() -> None:
    names = [(each.service, each.action) for each in orders().durable.values()]
    assert lane_config("orders", "1.2.3", 0, reversed(names)) == config()


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
