from __future__ import annotations

import base64

import msgspec
import pytest

from tenantry.errors import SetupError
from tenantry.operator import accounts, claims
from tenantry.operator.keys import KeyPair, Kind, is_public_key, verify


@pytest.fixture
def operator() -> KeyPair:
    return KeyPair.generate(Kind.OPERATOR)


@pytest.fixture
def account() -> KeyPair:
    return KeyPair.generate(Kind.ACCOUNT)


def sign(operator: KeyPair, account: KeyPair, issued: int = 7, **fields: object) -> str:
    nats = claims.Account(**fields)
    return claims.encode(nats, subject=account.public_key, signer=operator, issued=issued)


def parts(jwt: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in jwt.split(".")]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_public_key_starts_with_the_letter_of_its_kind(kind: Kind) -> None:
    assert KeyPair.generate(kind).public_key[0] == kind.value


def test_a_seed_gives_the_same_key_pair_again(operator: KeyPair) -> None:
    assert KeyPair.from_seed(operator.seed + "\n") == operator


def test_a_key_pair_shows_no_seed(operator: KeyPair) -> None:
    assert operator.seed not in repr(operator)


def test_a_signature_is_verified_with_the_public_key(operator: KeyPair) -> None:
    assert verify(operator.public_key, b"x", operator.sign(b"x"))


def test_a_signature_of_another_text_is_refused(operator: KeyPair) -> None:
    assert not verify(operator.public_key, b"y", operator.sign(b"x"))


def test_a_signature_under_garbage_for_a_key_is_refused(operator: KeyPair) -> None:
    assert not verify("O" * 56, b"x", operator.sign(b"x"))


@pytest.mark.parametrize(
    "seed", ["", "SO", "S" * 58, "é", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M"]
)
def test_a_damaged_seed_is_refused(seed: str) -> None:
    with pytest.raises(SetupError, match="not an nkey seed"):
        KeyPair.from_seed(seed)


def test_a_seed_with_one_changed_letter_is_refused(operator: KeyPair) -> None:
    letter = "A" if operator.seed[20] != "A" else "B"
    with pytest.raises(SetupError, match="not an nkey seed"):
        KeyPair.from_seed(operator.seed[:20] + letter + operator.seed[21:])


def test_a_public_key_is_not_taken_for_a_seed(operator: KeyPair) -> None:
    with pytest.raises(SetupError, match="not an nkey seed"):
        KeyPair.from_seed(operator.public_key)


def test_a_public_key_of_another_kind_is_told_apart(account: KeyPair) -> None:
    assert is_public_key(account.public_key, Kind.ACCOUNT)
    assert not is_public_key(account.public_key, Kind.USER)


def test_the_header_is_that_of_nats_jwt_v2(operator: KeyPair, account: KeyPair) -> None:
    header = msgspec.json.decode(parts(sign(operator, account))[0])
    assert header == {"typ": "JWT", "alg": "ed25519-nkey"}


def test_a_decoded_account_is_what_was_encoded(operator: KeyPair, account: KeyPair) -> None:
    built = accounts.edge_account(mesh=account.public_key, tenant_key=account.public_key)
    jwt = claims.encode(built, subject=account.public_key, signer=operator)
    assert claims.read(claims.decode(jwt), claims.Account) == built


def test_issuer_and_subject_are_named(operator: KeyPair, account: KeyPair) -> None:
    decoded = claims.decode(sign(operator, account))
    assert (decoded.iss, decoded.sub) == (operator.public_key, account.public_key)


def test_an_account_says_its_type_and_version(operator: KeyPair, account: KeyPair) -> None:
    nats = claims.decode(sign(operator, account)).nats
    assert (nats["type"], nats["version"]) == ("account", 2)


def test_a_scoped_key_says_its_kind(account: KeyPair) -> None:
    built = accounts.sys_account(account.public_key)
    assert msgspec.to_builtins(built)["signing_keys"][0]["kind"] == "user_scope"


def test_the_id_is_base32_of_sha512_256(operator: KeyPair, account: KeyPair) -> None:
    jti = claims.decode(sign(operator, account)).jti
    assert len(base64.b32decode(jti + "====")) == 32


def test_two_documents_of_one_second_have_two_ids(operator: KeyPair, account: KeyPair) -> None:
    plain = claims.decode(sign(operator, account, issued=7))
    revoking = claims.decode(sign(operator, account, issued=7, revocations={"*": 1}))
    assert plain.jti != revoking.jti


def test_the_same_document_has_the_same_id(operator: KeyPair, account: KeyPair) -> None:
    assert sign(operator, account, issued=7) == sign(operator, account, issued=7)


def test_a_jwt_without_end_has_no_exp(operator: KeyPair, account: KeyPair) -> None:
    assert "exp" not in msgspec.json.decode(parts(sign(operator, account))[1])


def test_a_changed_claim_breaks_the_signature(operator: KeyPair, account: KeyPair) -> None:
    head, body, signature = sign(operator, account).split(".")
    changed = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    changed["iat"] += 1
    forged = base64.urlsafe_b64encode(msgspec.json.encode(changed)).rstrip(b"=").decode()
    with pytest.raises(SetupError, match="signature"):
        claims.decode(f"{head}.{forged}.{signature}")


def test_a_jwt_without_signature_algorithm_is_refused(operator: KeyPair, account: KeyPair) -> None:
    _, body, signature = sign(operator, account).split(".")
    head = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()
    with pytest.raises(SetupError, match="algorithm"):
        claims.decode(f"{head}.{body}.{signature}")


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "é.é.é", "e30.e30.e30", "....", "e30"])
def test_garbage_is_not_a_jwt(text: str) -> None:
    with pytest.raises(SetupError, match="not a NATS JWT"):
        claims.decode(text)


def test_an_account_is_not_read_as_a_user(operator: KeyPair, account: KeyPair) -> None:
    with pytest.raises(SetupError, match="not of type User"):
        claims.read(claims.decode(sign(operator, account)), claims.User)
