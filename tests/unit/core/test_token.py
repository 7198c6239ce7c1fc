"""Tenant contexts: minting, verifying, and everything that must not verify."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from tenantry.context import token as token_module
from tenantry.context.claims import Claims
from tenantry.context.token import LIFETIME, REMINT, SKEW, KeyRing, Minter, Trusted
from tenantry.errors import BadContext

NOW = 1_800_000_000.0
SEED = bytes(range(32))
TYP = "tenantry-context+jwt"

tenants = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
words = st.text(max_size=40).filter(lambda text: text.isprintable() or not text)


@pytest.fixture(scope="module")
def minter() -> Minter:
    return Minter("k1", SEED)


@pytest.fixture
def ring(minter: Minter) -> KeyRing:
    return ring_of(minter)


@pytest.fixture(scope="module")
def token(minter: Minter) -> str:
    return minter.mint("acme", "standard", "edge", roles=("reader",), retention=60, now=NOW)


def ring_of(*minters: Minter, retired: float | None = None, size: int = 100) -> KeyRing:
    ring = KeyRing(size=size)
    ring.replace({minter.kid: Trusted(minter.public_key, retired) for minter in minters})
    return ring


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(head: Any, body: Any, *, seed: bytes = SEED) -> str:
    """A token whose parts are anything, signed as if all were well."""
    raw = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body)]
    signed = ".".join(map(b64, raw))
    return f"{signed}.{b64(SigningKey(seed).sign(signed.encode()).signature)}"


def head(**changes: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": "k1", "typ": TYP} | changes


def body(**changes: Any) -> dict[str, Any]:
    claims = {"tenant": "acme", "plan": "standard", "sub": "edge", "iat": NOW, "exp": NOW + 300}
    return claims | changes


# what verifies


@given(
    tenant=tenants,
    plan=words,
    principal=words,
    roles=st.lists(words, max_size=4).map(tuple),
    cell=words,
    retention=st.integers(0, 2**40),
    now=st.floats(0, 4e9),
)
def test_what_is_minted_is_read_back(
    tenant: str,
    plan: str,
    principal: str,
    roles: tuple[str, ...],
    cell: str,
    retention: int,
    now: float,
) -> None:
    minter = Minter("k1", SEED)
    minted = minter.mint(
        tenant, plan, principal, roles=roles, cell=cell, retention=retention, now=now
    )
    issued = round(now, 3)
    assert ring_of(minter).verify(minted, tenant, now) == Claims(
        tenant=tenant,
        plan=plan,
        principal=principal,
        roles=roles,
        cell=cell,
        retention=retention,
        issued=issued,
        expires=issued + LIFETIME,
    )


def test_a_context_carries_the_tenants_share_of_a_worker() -> None:
    minter = Minter("k1", SEED)
    minted = minter.mint("acme", "p", "x", weight=7, concurrency=3, now=NOW)
    claims = ring_of(minter).verify(minted, "acme", NOW)
    assert (claims.weight, claims.concurrency) == (7, 3)


def test_a_context_from_before_there_were_shares_has_one(ring: KeyRing) -> None:
    claims = ring.verify(forge(head(), body()), "acme", NOW)
    assert (claims.weight, claims.concurrency) == (1, 0)


@pytest.mark.parametrize("share", [{"weight": 0}, {"weight": -1}, {"concurrency": -1}])
def test_a_share_that_can_not_be_is_refused(share: dict[str, int]) -> None:
    minter = Minter("k1", SEED)
    with pytest.raises(BadContext):
        ring_of(minter).verify(minter.mint("acme", "p", "x", now=NOW, **share), "acme", NOW)


def test_a_context_forged_by_the_rules_of_the_format_verifies(ring: KeyRing) -> None:
    """What the forgeries below rest on: without their one fault they would pass."""
    assert ring.verify(forge(head(), body()), "acme", NOW).plan == "standard"


def test_a_context_is_a_jwt_that_names_its_key(token: str) -> None:
    first = token.partition(".")[0]
    assert json.loads(base64.urlsafe_b64decode(first + "==")) == head()


def test_a_context_is_valid_for_its_lifetime() -> None:
    minter = Minter("k1", SEED, lifetime=60)
    claims = ring_of(minter).verify(minter.mint("acme", "p", "x", now=NOW), "acme", NOW)
    assert claims.expires - claims.issued == 60


def test_the_time_now_is_the_default(minter: Minter, ring: KeyRing) -> None:
    import time

    assert ring.verify(minter.mint("acme", "p", "x"), "acme", time.time()).tenant == "acme"


@pytest.mark.parametrize("at", [NOW - SKEW, NOW, NOW + LIFETIME, NOW + LIFETIME + SKEW])
def test_it_is_valid_from_its_issue_to_its_end_give_or_take_the_skew(
    ring: KeyRing, token: str, at: float
) -> None:
    assert ring.verify(token, "acme", at).tenant == "acme"


def test_unknown_claims_and_header_fields_are_ignored(ring: KeyRing) -> None:
    token = forge(head(crit=["x"]), body(tier="gold"))
    assert ring.verify(token, "acme", NOW).tenant == "acme"


# what does not


@pytest.mark.parametrize("token", [None, ""])
def test_no_context_is_refused(ring: KeyRing, token: str | None) -> None:
    with pytest.raises(BadContext, match="carries no tenant context"):
        ring.verify(token, "acme", NOW)


@pytest.mark.parametrize("tenant", ["globex", "acm", "acme2", "ACME", "", "*", "acme."])
def test_the_context_of_another_tenant_is_refused(ring: KeyRing, token: str, tenant: str) -> None:
    with pytest.raises(BadContext, match="not of the subject's tenant"):
        ring.verify(token, tenant, NOW)


@pytest.mark.parametrize("at", [0.0, NOW - SKEW - 0.01, NOW + LIFETIME + SKEW + 0.01, 1e18])
def test_outside_its_time_it_is_refused(ring: KeyRing, token: str, at: float) -> None:
    with pytest.raises(BadContext, match="not valid at this time"):
        ring.verify(token, "acme", at)


def test_at_no_time_at_all_it_is_refused(ring: KeyRing, token: str) -> None:
    with pytest.raises(BadContext, match="not valid at this time"):
        ring.verify(token, "acme", float("nan"))


def test_one_verified_before_is_still_refused_once_expired(ring: KeyRing, token: str) -> None:
    ring.verify(token, "acme", NOW)
    with pytest.raises(BadContext, match="not valid at this time"):
        ring.verify(token, "acme", NOW + LIFETIME + SKEW + 1)


def test_one_verified_before_is_still_refused_for_another_tenant(ring: KeyRing, token: str) -> None:
    ring.verify(token, "acme", NOW)
    with pytest.raises(BadContext, match="not of the subject's tenant"):
        ring.verify(token, "globex", NOW)


def test_one_verified_before_is_refused_with_another_signature(
    minter: Minter, ring: KeyRing, token: str
) -> None:
    ring.verify(token, "acme", NOW)
    other = minter.mint("globex", "standard", "edge", now=NOW)
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(f"{token.rpartition('.')[0]}.{other.rpartition('.')[2]}", "acme", NOW)


def test_no_single_changed_character_gives_other_claims(ring: KeyRing, token: str) -> None:
    """The last bits of base64 mean nothing, so some changes are none."""
    good = ring.verify(token, "acme", NOW)
    for index, letter in enumerate(token):
        for other in {"A", "_", "."} - {letter}:
            _refused_or_same(ring, f"{token[:index]}{other}{token[index + 1 :]}", good)


@given(st.data())
def test_no_change_gives_other_claims(data: st.DataObject) -> None:
    minter = Minter("k1", SEED)
    token = minter.mint("acme", "standard", "edge", now=NOW)
    ring = ring_of(minter)
    good = ring.verify(token, "acme", NOW)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 3)))
    letters = st.text(string.ascii_letters + string.digits + "-_.=+/ \n\0\u00e9", max_size=3)
    _refused_or_same(ring, token[:start] + data.draw(letters) + token[end:], good)


def _refused_or_same(ring: KeyRing, token: str, good: Claims) -> None:
    with contextlib.suppress(BadContext):
        assert ring.verify(token, "acme", NOW) == good


@given(st.one_of(st.text(), st.text("abcXYZ019-_.", max_size=200)))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(BadContext):
        ring_of(Minter("k1", SEED)).verify(text, "acme", NOW)


@pytest.mark.parametrize("claim", ["tenant", "plan", "sub", "iat", "exp"])
def test_a_changed_claim_breaks_the_signature(ring: KeyRing, token: str, claim: str) -> None:
    first, second, third = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(second + "=="))
    claims[claim] = claims[claim] + ("x" if isinstance(claims[claim], str) else 1)
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(f"{first}.{b64(json.dumps(claims).encode())}.{third}", "acme", NOW)


def test_the_signature_of_another_context_is_refused(
    minter: Minter, ring: KeyRing, token: str
) -> None:
    other = minter.mint("globex", "standard", "edge", now=NOW)
    swapped = ".".join([*token.split(".")[:2], other.split(".")[2]])
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(swapped, "acme", NOW)


def test_the_key_of_a_stranger_is_refused(ring: KeyRing) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(forge(head(), body(), seed=b"\1" * 32), "acme", NOW)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS256", "EdDSA ", "eddsa", "ES256"])
def test_another_algorithm_is_refused(ring: KeyRing, alg: str) -> None:
    with pytest.raises(BadContext, match="of another kind"):
        ring.verify(forge(head(alg=alg), body()), "acme", NOW)


def test_no_signature_is_refused(ring: KeyRing) -> None:
    unsigned = forge(head(alg="none"), body()).rpartition(".")[0]
    with pytest.raises(BadContext):
        ring.verify(f"{unsigned}.", "acme", NOW)


def test_an_empty_signature_is_refused(ring: KeyRing, token: str) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(f"{token.rpartition('.')[0]}.", "acme", NOW)


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
def test_a_mac_with_the_public_key_as_its_secret_is_refused(
    minter: Minter, ring: KeyRing, alg: str
) -> None:
    signed = forge(head(alg=alg), body()).rpartition(".")[0]
    for secret in (minter.public_key.encode(), bytes(SigningKey(SEED).verify_key)):
        mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
        for signature in (mac, mac + mac):
            with pytest.raises(BadContext):
                ring.verify(f"{signed}.{b64(signature)}", "acme", NOW)


@pytest.mark.parametrize("typ", ["JWT", "", "at+jwt", "tenantry-context+JWT"])
def test_a_token_of_another_type_is_refused(ring: KeyRing, typ: str) -> None:
    with pytest.raises(BadContext, match="of another kind"):
        ring.verify(forge(head(typ=typ), body()), "acme", NOW)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": "EdDSA", "kid": "k1"},
        {"alg": "EdDSA", "typ": TYP},
        {"kid": "k1", "typ": TYP},
        {"alg": 1, "kid": "k1", "typ": TYP},
        {"alg": "EdDSA", "kid": ["k1"], "typ": TYP},
        [],
        "EdDSA",
        b"",
        b"\xff",
        b"{",
    ],
)
def test_a_header_of_another_shape_is_refused(ring: KeyRing, header: Any) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(forge(header, body()), "acme", NOW)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        [],
        b"",
        b"\xff",
        {"tenant": "acme"},
        body(iat="now"),
        body(tenant=None),
        body(roles="admin"),
        body(exp=None),
    ],
)
def test_claims_of_another_shape_are_refused_even_when_signed(ring: KeyRing, claims: Any) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(forge(head(), claims), "acme", NOW)


@pytest.mark.parametrize("tenant", ["", "*", ">", "a.b", "Acme", "acme\n", "\u0430cme", "a" * 64])
def test_a_signed_context_that_names_no_tenant_is_refused(ring: KeyRing, tenant: str) -> None:
    with pytest.raises(BadContext, match="names no tenant"):
        ring.verify(forge(head(), body(tenant=tenant)), tenant, NOW)


def test_an_unknown_key_is_refused(ring: KeyRing) -> None:
    with pytest.raises(BadContext, match="unknown key"):
        ring.verify(forge(head(kid="k2"), body()), "acme", NOW)


@pytest.mark.parametrize("parts", [1, 2, 4, 5])
def test_it_has_three_parts(ring: KeyRing, token: str, parts: int) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(".".join((token.split(".") * 2)[:parts]), "acme", NOW)


@pytest.mark.parametrize("filler", ["=", "==", " ", "\n", "+", "/", "\0", "\u00e9", "\u212a"])
def test_only_plain_base64url_is_read(ring: KeyRing, token: str, filler: str) -> None:
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(token + filler, "acme", NOW)


def test_a_letter_that_looks_the_same_is_another(ring: KeyRing, token: str) -> None:
    assert "e" in token
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(token.replace("e", "\u0435", 1), "acme", NOW)


def test_a_long_one_is_refused_before_it_is_looked_at(ring: KeyRing) -> None:
    with pytest.raises(BadContext, match="too long"):
        ring.verify(forge(head(), body(plan="p" * 4096)), "acme", NOW)


def test_a_bomb_of_brackets_is_refused(ring: KeyRing) -> None:
    bomb = json.dumps(head(x=0)).replace("0", "[" * 2800).encode()
    with pytest.raises(BadContext, match="malformed or forged"):
        ring.verify(f"{b64(bomb)}.e30.e30", "acme", NOW)


def test_a_refusal_does_not_repeat_the_context(ring: KeyRing, token: str) -> None:
    first, second, _ = token.split(".")
    with pytest.raises(BadContext) as caught:
        ring.verify(f"{first}.{second}.AAAA", "acme", NOW)
    assert second not in str(caught.value)
    assert caught.value.__cause__ is None


def many(minter: Minter, count: int) -> list[str]:
    return [minter.mint("acme", "standard", str(number), now=NOW) for number in range(count)]


def test_what_came_last_is_remembered_where_there_is_no_room_for_all(minter: Minter) -> None:
    ring = ring_of(minter, size=8)
    *_, mine = tokens = many(minter, 30)
    for each in tokens:
        ring.verify(each, "acme", NOW)
    assert ring.verify(mine, "acme", NOW) is ring.verify(mine, "acme", NOW)


def test_what_came_first_is_forgotten_then(minter: Minter) -> None:
    ring = ring_of(minter, size=8)
    mine, *others = many(minter, 30)
    first = ring.verify(mine, "acme", NOW)
    for other in others:
        ring.verify(other, "acme", NOW)
    again = ring.verify(mine, "acme", NOW)
    assert again is not first
    assert again == first


@pytest.mark.parametrize(("age", "kept"), [(0.0, True), (REMINT + SKEW + 1.0, False)])
def test_what_no_router_sends_any_more_is_forgotten(
    minter: Minter, monkeypatch: pytest.MonkeyPatch, age: float, kept: bool
) -> None:
    monkeypatch.setattr(token_module, "_SWEEP", -1.0)
    ring, issued = ring_of(minter), time.time() - age
    first = minter.mint("acme", "standard", "edge", now=issued)
    claims = ring.verify(first, "acme", issued)
    ring.verify(minter.mint("acme", "standard", "other"), "acme", time.time())
    assert (ring.verify(first, "acme", issued) is claims) == kept
