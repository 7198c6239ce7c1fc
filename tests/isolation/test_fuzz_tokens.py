"""Tenant contexts: any change is refused, and none is another tenant's."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from tenantry.context.claims import Claims
from tenantry.context.token import LIFETIME, SKEW, KeyRing, Minter, Trusted
from tenantry.errors import BadContext
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.test_fuzz_names import ids, pairs

NOW = 1_800_000_000.0
MINTER = Minter("k1", bytes(range(32)))
STRANGER = Minter("k1", bytes(range(1, 33)))

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
claims = st.fixed_dictionaries(
    {"tenant": ids, "plan": words, "principal": words},
    optional={
        "roles": st.lists(words, max_size=3).map(tuple),
        "cell": words,
        "retention": st.integers(0, 2**40),
        "weight": st.integers(1, 2**31),
        "concurrency": st.integers(0, 2**31),
    },
)


def ring() -> KeyRing:
    """One that has seen nothing yet."""
    made = KeyRing()
    made.replace({MINTER.kid: Trusted(MINTER.public_key)})
    return made


def refused(token: str | None, tenant: str, at: float = NOW, keys: KeyRing | None = None) -> bool:
    """Whether it does not verify, and in no other way than the documented one."""
    try:
        (keys or ring()).verify(token, tenant, at)
    except BadContext:
        return True
    return False


@can(25)
@can(27)
@can(31)
@given(claims, st.floats(0, 4e9))
def test_claims_are_read_back_as_they_were_minted(said: dict[str, object], now: float) -> None:
    token = MINTER.mint(**said, now=now)  # type: ignore[arg-type]
    found = ring().verify(token, str(said["tenant"]), now)
    issued = round(now, 3)
    assert found == Claims(**said, issued=issued, expires=issued + LIFETIME)  # type: ignore[arg-type]


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
def test_any_change_of_any_byte_is_refused() -> None:
    token = MINTER.mint("acme", "standard", "edge", now=NOW).encode()
    keys = ring()
    assert not refused(token.decode(), "acme", keys=keys)
    for place in range(len(token)):
        for bit in range(8):
            changed = token[:place] + bytes([token[place] ^ 1 << bit]) + token[place + 1 :]
            assert refused(changed.decode("latin-1"), "acme", keys=keys), (place, bit)


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@given(st.data(), pairs())
def test_any_change_is_refused(data: st.DataObject, pair: tuple[str, str]) -> None:
    token = MINTER.mint(pair[0], "standard", "edge", now=NOW)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 9)))
    changed = token[:start] + data.draw(st.text(max_size=9)) + token[end:]
    for tenant in pair:
        assert refused(changed, tenant) or (changed == token and tenant == pair[0])


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@given(pairs(), st.sets(st.integers(0, 2), min_size=1, max_size=2))
def test_parts_of_two_tenants_contexts_make_none(pair: tuple[str, str], swapped: set[int]) -> None:
    one, other = (MINTER.mint(each, "standard", "edge", now=NOW).split(".") for each in pair)
    mixed = ".".join(other[n] if n in swapped else one[n] for n in range(3))
    genuine = {".".join(one): pair[0], ".".join(other): pair[1]}
    for tenant in pair:
        assert refused(mixed, tenant) or genuine.get(mixed) == tenant


@cannot(27, Layer.CONTEXT, without=Layer.ROUTER)
@given(pairs(), st.floats(-1e10, 1e10))
def test_the_context_of_one_is_never_the_others(pair: tuple[str, str], at: float) -> None:
    keys, token = ring(), MINTER.mint(pair[0], "standard", "edge", now=NOW)
    assert refused(token, pair[1], at, keys)
    assert not refused(token, pair[0], NOW, keys)  # and from now on it is known
    assert refused(token, pair[1], at, keys)


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@given(claims)
def test_with_another_key_of_the_same_name_it_is_refused(said: dict[str, object]) -> None:
    token = STRANGER.mint(**said, now=NOW)  # type: ignore[arg-type]
    assert refused(token, str(said["tenant"]))


@cannot(31, Layer.CONTEXT, without=Layer.ROUTER)
@given(ids, st.floats(allow_nan=True), st.floats(1, 1e6), st.floats(0, 4e9))
def test_it_holds_between_its_issue_and_its_end_give_or_take_the_skew(
    tenant: str, at: float, lifetime: float, now: float
) -> None:
    minter = Minter("k1", bytes(range(32)), lifetime=lifetime)
    issued = round(now, 3)
    token = minter.mint(tenant, "standard", "edge", now=now)
    for moment in (at, issued - SKEW - 0.01, issued, issued + lifetime, issued + at):
        within = issued - SKEW <= moment <= issued + lifetime + SKEW
        assert refused(token, tenant, moment) != within


@cannot(31, Layer.CONTEXT, without=Layer.ROUTER)
@given(ids, st.floats(-1e6, 1e6))
def test_a_retired_key_signs_nothing_new(tenant: str, later: float) -> None:
    keys = KeyRing()
    keys.replace({MINTER.kid: Trusted(MINTER.public_key, NOW)})
    now = round(NOW + later, 3)
    assert refused(MINTER.mint(tenant, "p", "x", now=now), tenant, now, keys) == (now > NOW)


@cannot(25, Layer.CONTEXT, without=Layer.ROUTER)
@given(st.one_of(st.none(), st.text(), st.text("eyJ0.-_=", max_size=80), st.binary(max_size=60)))
def test_what_is_no_context_is_refused(token: str | bytes | None) -> None:
    text = base64.urlsafe_b64encode(token).decode() if isinstance(token, bytes) else token
    assert refused(text, "acme")
    assert refused(f"{text}.{text}.{text}", "acme")
