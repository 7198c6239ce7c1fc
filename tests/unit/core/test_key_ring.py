"""The keys that contexts verify with: retired, replaced, rotated; and the cache over them."""

from __future__ import annotations

import pytest

from tenantry.context.token import KeyRing, Minter, Trusted
from tenantry.errors import BadContext, UnknownKey
from tests.unit.core.test_token import NOW, ring_of

OLD, NEW = Minter("old", b"\1" * 32), Minter("new", b"\2" * 32)


def mint(minter: Minter = OLD, *, tenant: str = "acme", now: float = NOW) -> str:
    return minter.mint(tenant, "standard", "edge", now=now)


@pytest.mark.parametrize("issued", [NOW - 100, NOW])
def test_a_retired_key_verifies_what_it_signed_before(issued: float) -> None:
    ring = ring_of(OLD, retired=NOW)
    assert ring.verify(mint(now=issued), "acme", NOW).issued == issued


def test_a_retired_key_does_not_verify_what_it_signed_after() -> None:
    with pytest.raises(BadContext, match="retired key"):
        ring_of(OLD, retired=NOW).verify(mint(now=NOW + 0.001), "acme", NOW)


@pytest.mark.parametrize("minter", [OLD, NEW])
def test_while_keys_rotate_both_verify(minter: Minter) -> None:
    assert ring_of(OLD, NEW).verify(mint(minter), "acme", NOW).tenant == "acme"


def test_the_key_id_of_another_key_does_not_help() -> None:
    ring = KeyRing()
    ring.replace({"old": Trusted(NEW.public_key), "new": Trusted(OLD.public_key)})
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(mint(OLD), "acme", NOW)


def test_an_empty_ring_verifies_nothing() -> None:
    with pytest.raises(UnknownKey, match="unknown key"):
        KeyRing().verify(mint(), "acme", NOW)


def test_a_key_that_is_taken_away_verifies_no_more_what_it_has_verified() -> None:
    ring, token = ring_of(OLD), mint()
    ring.verify(token, "acme", NOW)
    ring.replace({})
    with pytest.raises(BadContext, match="unknown key"):
        ring.verify(token, "acme", NOW)


def test_a_key_that_retires_verifies_no_more_what_was_signed_after() -> None:
    ring, token = ring_of(OLD), mint()
    ring.verify(token, "acme", NOW)
    ring.replace({"old": Trusted(OLD.public_key, NOW - 1)})
    with pytest.raises(BadContext, match="retired key"):
        ring.verify(token, "acme", NOW)


def test_the_length_is_the_number_of_keys() -> None:
    assert len(ring_of(OLD, NEW)) == 2


@pytest.mark.parametrize("bad", ["", "AAAA", "not a key", "\u00e9", "=" * 43, "A" * 44])
def test_what_is_no_key_is_told_and_keeps_no_other_out(bad: str) -> None:
    ring = KeyRing()
    told = ring.replace({"bad": Trusted(bad), "old": Trusted(OLD.public_key)})
    assert told == ["bad"]
    assert ring.verify(mint(), "acme", NOW).tenant == "acme"


# the cache


def test_what_was_verified_is_looked_up() -> None:
    ring, token = ring_of(OLD), mint()
    assert ring.verify(token, "acme", NOW) is ring.verify(token, "acme", NOW + 1)


def test_the_cache_is_bounded() -> None:
    ring = ring_of(OLD, size=3)
    for index in range(20):
        ring.verify(mint(now=NOW + index), "acme", NOW + index)
        assert len(ring._seen) <= 3


def test_what_fell_out_of_the_cache_still_verifies() -> None:
    ring, first = ring_of(OLD, size=1), mint()
    ring.verify(first, "acme", NOW)
    ring.verify(mint(tenant="globex"), "globex", NOW)
    assert ring.verify(first, "acme", NOW).tenant == "acme"


def test_what_was_refused_is_not_kept() -> None:
    ring = ring_of(OLD)
    for index in range(5):
        with pytest.raises(BadContext):
            ring.verify(f"garbage{index}", "acme", NOW)
    assert not ring._seen


# revoked


def revoked(since: float) -> KeyRing:
    ring = KeyRing()
    ring.replace({"old": Trusted(OLD.public_key, void=since)})
    return ring


def test_a_revoked_key_verifies_nothing_any_more() -> None:
    with pytest.raises(BadContext, match="revoked key"):
        revoked(0.0).verify(mint(), "acme", NOW)


def test_a_revoked_key_verifies_what_was_stored_before_it_was_stolen() -> None:
    assert revoked(NOW).verify(mint(now=NOW - 10), "acme", NOW - 5).tenant == "acme"


def test_a_revoked_key_does_not_verify_what_was_stored_after_it_was_stolen() -> None:
    with pytest.raises(BadContext, match="revoked key"):
        revoked(NOW).verify(mint(now=NOW - 10), "acme", NOW)


def test_what_a_revoked_key_has_verified_is_not_looked_up() -> None:
    ring, token = revoked(NOW), mint(now=NOW - 10)
    ring.verify(token, "acme", NOW - 5)
    with pytest.raises(BadContext, match="revoked key"):
        ring.verify(token, "acme", NOW)


def test_a_key_that_is_revoked_verifies_no_more_what_it_has_verified() -> None:
    ring, token = ring_of(OLD), mint()
    ring.verify(token, "acme", NOW)
    ring.replace({"old": Trusted(OLD.public_key, void=0.0)})
    with pytest.raises(BadContext, match="revoked key"):
        ring.verify(token, "acme", NOW)
