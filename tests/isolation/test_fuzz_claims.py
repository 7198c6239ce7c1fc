"""JWTs and credentials files: whatever they say, they are read as they stand or refused."""

from __future__ import annotations

import base64
import contextlib

import nkeys
from hypothesis import given
from hypothesis import strategies as st

from tenantry import subjects
from tenantry.errors import SetupError
from tenantry.operator import claims, creds
from tenantry.operator.keys import KeyPair, Kind, is_public_key
from tests.isolation.attacker import sign
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.test_fuzz_names import ids, pairs

SIGNER, USER = KeyPair.generate(Kind.ACCOUNT), KeyPair.generate(Kind.USER)

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
tags = st.one_of(
    ids.map(creds.tenant_tag),
    st.text(max_size=20).map(creds.tenant_tag),
    st.text(max_size=20),
    st.sampled_from(["tenant:*", "tenant:>", "tenant:", "tenant:a.b", "Tenant:a", "TENANT:*"]),
)


def file_of(*said: str, signer: KeyPair = SIGNER) -> str:
    """A credentials file whose user has these tags."""
    user = claims.User(issuer_account=SIGNER.public_key, tags=said)
    return creds.render(claims.encode(user, subject=USER.public_key, signer=signer), USER)


def decoded(text: str) -> claims.Claims | None:
    """What a JWT says; None where it is refused, in the documented way and no other."""
    try:
        return claims.decode(text)
    except SetupError:
        return None


def parsed(text: str) -> creds.Credentials | None:
    """The same for a credentials file."""
    try:
        return creds.parse(text)
    except SetupError:
        return None


@can(24)
@given(ids, st.text(max_size=20), st.integers(0, 2**40))
def test_claims_are_read_back_as_they_were_signed(tenant: str, name: str, issued: int) -> None:
    user = claims.User(issuer_account=SIGNER.public_key, tags=(creds.tenant_tag(tenant),))
    name = name.encode("utf-8", "replace").decode()
    jwt = claims.encode(
        user, subject=USER.public_key, signer=SIGNER, name=name, issued=issued, expires=issued + 1
    )
    found = claims.decode(jwt)
    assert (found.sub, found.iss) == (USER.public_key, SIGNER.public_key)
    assert (found.name, found.iat, found.exp) == (name, issued, issued + 1)
    assert claims.read(found, claims.User) == user
    assert creds.tenant_of(creds.render(jwt, USER)) == tenant


@cannot(24, Layer.CONTROL)
@given(st.data())
def test_no_change_gives_other_claims(data: st.DataObject) -> None:
    jwt = claims.encode(claims.User(tags=("tenant:acme",)), subject=USER.public_key, signer=SIGNER)
    start = data.draw(st.integers(0, len(jwt)))
    end = data.draw(st.integers(start, min(len(jwt), start + 5)))
    changed = jwt[:start] + data.draw(st.text(max_size=5)) + jwt[end:]
    found = decoded(changed)
    assert found is None or found == claims.decode(jwt)


@cannot(24, Layer.CONTROL)
@given(pairs())
def test_no_parts_of_two_jwts_make_one(pair: tuple[str, str]) -> None:
    one, other = (creds.parse(file_of(creds.tenant_tag(each))).jwt.split(".") for each in pair)
    assert decoded(f"{one[0]}.{one[1]}.{other[2]}") is None
    assert decoded(f"{one[0]}.{other[1]}.{one[2]}") is None


@cannot(24, Layer.CONTROL)
@given(st.one_of(st.text(), st.text("eyJ0.-_=+/ \n", max_size=80)))
def test_what_is_no_jwt_is_refused(text: str) -> None:
    assert decoded(text) is None
    assert decoded(f"{text}.{text}.{text}") is None


@cannot(24, Layer.CONTROL)
@given(st.dictionaries(st.sampled_from(["sub", "iss", "iat", "nats", "name", "exp", "x"]), json))
def test_signed_claims_of_any_shape_are_refused_or_read(said: dict[str, object]) -> None:
    for more in ({}, {"iss": SIGNER.public_key, "sub": USER.public_key, "iat": 1}):
        found = decoded(sign(said | more, SIGNER))
        assert found is None or found.iss == SIGNER.public_key
        for kind in (claims.User, claims.Account, claims.Operator):
            if found is not None:
                _read(found, kind)


def _read(found: claims.Claims, kind: type) -> None:
    with contextlib.suppress(SetupError):
        assert isinstance(claims.read(found, kind), kind)


@cannot(24, Layer.CONTROL)
def test_claims_that_are_too_deep_are_refused() -> None:
    for deep in ("[" * 100_000, '{"nats":' * 100_000, '{"a":' + "[" * 50_000):
        text = base64.urlsafe_b64encode(deep.encode()).decode().rstrip("=")
        assert decoded(f"{text}.{text}.AAAA") is None
        head = base64.urlsafe_b64encode(b'{"typ":"JWT"}').decode().rstrip("=")
        assert decoded(f"{head}.{text}.AAAA") is None


@cannot(24, Layer.CONTROL)
@given(st.lists(tags, max_size=4))
def test_credentials_are_of_one_tenant_or_refused(said: list[str]) -> None:
    """Of several the server would take all, and `*` for every tenant."""
    text = file_of(*(tag.encode("utf-8", "replace").decode() for tag in said))
    named = {tag[len("tenant:") :] for tag in said if tag.startswith("tenant:")}
    try:
        tenant = creds.tenant_of(text)
    except SetupError:
        assert len(named) > 1 or not all(map(subjects.is_tenant, named))
    else:
        assert named == ({tenant} if tenant is not None else set())


@cannot(24, Layer.CONTROL)
@given(st.data())
def test_a_credentials_file_that_is_changed_is_refused_or_the_same(data: st.DataObject) -> None:
    text = file_of("tenant:acme")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    found = parsed(text[:start] + data.draw(st.text(max_size=9)) + text[end:])
    assert found is None or (found.key, found.claims) == (USER, creds.parse(text).claims)


@cannot(24, Layer.CONTROL)
@given(st.text(), st.text(), st.text("-BEGIN UTSRJWKYSD\n", max_size=90))
def test_what_is_no_credentials_file_is_refused(jwt: str, seed: str, text: str) -> None:
    begin, end = "-----BEGIN {}-----\n", "\n------END {}------\n"
    made = "".join(
        begin.format(name) + part + end.format(name)
        for name, part in (("NATS USER JWT", jwt), ("USER NKEY SEED", seed))
    )
    assert parsed(made) is None
    assert parsed(text) is None


@cannot(24, Layer.CONTROL)
@given(st.binary(max_size=40), st.booleans())
def test_a_seed_is_whole_or_refused(raw: bytes, checked: bool) -> None:
    data = raw + nkeys.crc16_checksum(raw) if checked and raw else raw
    text = base64.b32encode(data).decode().rstrip("=")
    try:
        pair = KeyPair.from_seed(text)
    except SetupError:
        return
    assert KeyPair.from_seed(pair.seed).public_key == pair.public_key


@cannot(24, Layer.CONTROL)
@given(st.one_of(st.text(max_size=60), st.text("UABCDE234567", min_size=56, max_size=56)))
def test_a_public_key_has_its_checksum(text: str) -> None:
    assert not is_public_key(text)
    assert is_public_key(USER.public_key, Kind.USER)
