from __future__ import annotations

import pytest

from tenantry.errors import SetupError
from tenantry.operator import claims, creds
from tenantry.operator.keys import KeyPair, Kind


@pytest.fixture
def user() -> KeyPair:
    return KeyPair.generate(Kind.USER)


def issue(user: KeyPair, *tags: str) -> str:
    jwt = claims.encode(
        claims.User(tags=tags), subject=user.public_key, signer=KeyPair.generate(Kind.ACCOUNT)
    )
    return creds.render(jwt, user)


def test_the_user_is_read_back(user: KeyPair) -> None:
    assert creds.parse(issue(user)).key == user


def test_the_jwt_is_on_the_line_after_its_header(user: KeyPair) -> None:
    text = issue(user)
    lines = text.splitlines()
    jwt = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1]
    assert creds.parse(text).jwt == jwt


def test_windows_line_ends_do_no_harm(user: KeyPair) -> None:
    assert creds.public_key_of(issue(user).replace("\n", "\r\n")) == user.public_key


def test_the_tenant_comes_from_the_tag(user: KeyPair) -> None:
    assert creds.tenant_of(issue(user, "team:x", "tenant:acme")) == "acme"


@pytest.mark.parametrize(
    "tags", [("tenant:acme", "tenant:globex"), ("tenant:*",), ("tenant:",), ("tenant:a.b",)]
)
def test_credentials_of_several_tenants_are_nobodys(user: KeyPair, tags: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match="not of one tenant"):
        creds.tenant_of(issue(user, *tags))


def test_credentials_of_the_mesh_have_no_tenant(user: KeyPair) -> None:
    assert creds.tenant_of(issue(user)) is None


def test_the_public_key_is_that_of_the_user(user: KeyPair) -> None:
    assert creds.public_key_of(issue(user)) == user.public_key


def test_parsed_credentials_show_no_secret(user: KeyPair) -> None:
    parsed = creds.parse(issue(user))
    assert user.seed not in repr(parsed)
    assert parsed.jwt not in repr(parsed)


@pytest.mark.parametrize("text", ["", "garbage", "-----BEGIN NATS USER JWT-----\n"])
def test_garbage_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(SetupError) as caught:
        creds.parse(text)
    assert ".creds" in caught.value.hint


def test_a_file_without_its_seed_is_refused(user: KeyPair) -> None:
    with pytest.raises(SetupError, match="not a NATS credentials file"):
        creds.parse(issue(user).split("*****", maxsplit=1)[0])


def test_the_seed_of_another_user_is_refused(user: KeyPair) -> None:
    other = KeyPair.generate(Kind.USER)
    with pytest.raises(SetupError, match="does not belong"):
        creds.parse(issue(user).replace(user.seed, other.seed))


def test_a_changed_jwt_is_refused(user: KeyPair) -> None:
    text = issue(user)
    jwt = creds.parse(text).jwt
    with pytest.raises(SetupError):
        creds.parse(text.replace(jwt, jwt[:-4] + "AAAA"))
