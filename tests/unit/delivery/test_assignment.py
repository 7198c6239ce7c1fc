"""Which instance reads which partition."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tenantry.delivery.assignment import assign
from tenantry.subjects import PARTITIONS

names = st.sets(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=20)


@given(names)
def test_every_partition_has_an_owner_and_nobody_more_than_its_share(found: set[str]) -> None:
    owners = assign(dict.fromkeys(found, "1.0.0"))
    assert sorted(owners) == list(range(PARTITIONS))
    assert max(Counter(owners.values()).values()) <= -(-PARTITIONS // len(found))


@given(names)
def test_all_instances_see_the_same(found: set[str]) -> None:
    there, back = sorted(found), sorted(found, reverse=True)
    assert assign(dict.fromkeys(there, "1.0.0")) == assign(dict.fromkeys(back, "1.0.0"))


def test_nobody_owns_nothing() -> None:
    assert assign({}) == {}


def test_only_the_newest_version_owns_partitions() -> None:
    owners = assign({"a": "1.9.0", "b": "1.10.0", "c": "1.10.0-rc.1"})
    assert set(owners.values()) == {"b"}


def test_few_partitions_move_when_an_instance_comes() -> None:
    before = assign(dict.fromkeys(["a1", "b2", "c3"], "1.0.0"))
    after = assign(dict.fromkeys(["a1", "b2", "c3", "d4"], "1.0.0"))
    moved = sum(before[each] != after[each] for each in range(PARTITIONS))
    assert moved <= PARTITIONS // 2
