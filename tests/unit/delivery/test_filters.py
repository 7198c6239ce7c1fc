"""What a service reads of the journal, and what a checkpoint remembers of it."""

from __future__ import annotations

from tenantry import Context, Service
from tenantry.delivery import filters
from tenantry.messages import Checkpoint


async def nothing(_ctx: Context) -> None: ...


def orders(version: str = "1.0.0", *, ordered: bool = True) -> Service:
    service = Service("orders", version=version)
    service.command("import", ordered=ordered)(nothing)
    service.command("export")(nothing)
    service.request("place")(nothing)
    return service


def claimed(service: Service, found: Checkpoint | None = None) -> Checkpoint:
    found = found or Checkpoint()
    names = filters.names_of(service, found)
    return filters.claimed(service, found, names, owner="me")


def test_a_service_without_followers_reads_its_own_messages_alone() -> None:
    names = frozenset(orders().durable)
    assert filters.subject_of(names, 3) == "journal.3.*.orders.*"


def test_a_follower_of_one_event_reads_that_alone() -> None:
    assert filters.subject_of(frozenset({"billing.paid"}), 3) == "journal.3.*.billing.paid"


def test_a_service_that_reads_several_reads_all_of_its_partition() -> None:
    names = frozenset({"billing.paid", "orders.import"})
    assert filters.subject_of(names, 3) == "journal.3.*.*.*"


def test_a_filter_can_be_narrowed_to_a_tenant() -> None:
    assert filters.subject_of(frozenset({"a.b"}), 3, "acme") == "journal.3.acme.a.b"


def test_requests_are_not_in_the_journal() -> None:
    assert filters.names_of(orders(), Checkpoint()).known == {"orders.import", "orders.export"}


def test_an_own_command_that_was_dropped_stays_known() -> None:
    before = Checkpoint(version="0.9.0", names=("orders.old", "billing.paid"))
    names = filters.names_of(orders(), before)
    assert names.known == {"orders.import", "orders.export", "orders.old"}
    assert not names.newer


def test_an_older_version_keeps_all_that_a_newer_one_knows() -> None:
    newer = Checkpoint(version="2.0.0", names=("orders.new", "billing.paid"))
    names = filters.names_of(orders(), newer)
    assert names.known == {"orders.import", "orders.export", "orders.new", "billing.paid"}
    assert names.newer
    assert claimed(orders(), newer).version == "2.0.0"


def test_a_newer_version_says_so() -> None:
    assert claimed(orders("2.0.0"), Checkpoint(version="1.0.0")).version == "2.0.0"


def test_each_owner_raises_the_epoch() -> None:
    mine = claimed(orders(), Checkpoint(epoch=6, owner="other", read_to=9))
    assert (mine.epoch, mine.owner, mine.read_to) == (7, "me", 9)


def test_an_action_is_unordered_in_what_comes_after_its_declaration() -> None:
    names = filters.names_of(orders(ordered=False), Checkpoint(read_to=10))
    assert not names.is_unordered("orders.import", 10)
    assert names.is_unordered("orders.import", 11)
    assert not names.is_unordered("orders.export", 11)


def test_since_when_an_action_is_unordered_is_remembered() -> None:
    first = claimed(orders(ordered=False), Checkpoint(read_to=10))
    later = filters.names_of(
        orders(ordered=False), Checkpoint(read_to=50, unordered=first.unordered)
    )
    assert later.is_unordered("orders.import", 11)


def test_a_message_for_another_service_alone_is_not_ours() -> None:
    assert filters.is_for("orders", None)
    assert filters.is_for("orders", {"Tenant-Only": "orders"})
    assert not filters.is_for("orders", {"Tenant-Only": "billing"})


def test_imported_history_is_for_replays_alone() -> None:
    for only, ours in (("-", True), ("-orders", True), ("-billing", False)):
        assert not filters.is_for("orders", {"Tenant-Only": only})
        assert filters.is_for("orders", {"Tenant-Only": only}, replay=True) is ours


def test_the_window_of_an_owner_that_never_released_reaches_to_the_end() -> None:
    names = filters.names_of(orders(), Checkpoint())
    found = Checkpoint(owner="gone")
    mine = filters.claimed(orders(), found, names, owner="me", end=40, since=7.0)
    assert (mine.unclean_to, mine.since) == (40, 7.0)


def test_an_older_window_begins_when_it_began() -> None:
    names = filters.names_of(orders(), Checkpoint())
    found = Checkpoint(owner="gone", unclean_to=30, since=5.0)
    mine = filters.claimed(orders(), found, names, owner="me", end=40, since=7.0)
    assert (mine.unclean_to, mine.since) == (40, 5.0)
    released = Checkpoint(unclean_to=30, since=5.0)
    mine = filters.claimed(orders(), released, names, owner="me", end=40, since=7.0)
    assert (mine.unclean_to, mine.since) == (30, 5.0)
