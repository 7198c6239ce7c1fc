"""Signing keys over time, in the files of an operator's home."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tenantry.errors import SetupError
from tenantry.operator import OperatorHome, claims, creds, generations, plant
from tenantry.operator.keys import KeyPair, Kind

LABELS = list(plant.SIGNING)


@pytest.fixture
def home(tmp_path: Path) -> OperatorHome:
    return OperatorHome.create(tmp_path / "home")


def rotate(home: OperatorHome, label: str) -> list[Path]:
    draft = generations.next_key(home, label)
    generations.keep_keys(home, draft)
    return generations.commit(home, draft)


def keys_of(home: OperatorHome, label: str) -> set[str]:
    account, role = plant.place_of(label)
    document = claims.read(OperatorHome.load(home.path).account(account), claims.Account)
    return {scoped.key for scoped in document.signing_keys if scoped.role == role}


@pytest.mark.parametrize("label", LABELS)
def test_a_further_key_is_in_the_account_beside_the_first(home: OperatorHome, label: str) -> None:
    [first] = keys_of(home, label)
    rotate(home, label)
    assert keys_of(home, label) == {first, home.live_keys(label)[-1].key}
    assert not generations.outdated(OperatorHome.load(home.path))


@pytest.mark.parametrize("label", LABELS)
def test_a_key_that_is_taken_away_is_in_the_account_no_more(home: OperatorHome, label: str) -> None:
    [first] = home.live_keys(label)
    rotate(home, label)
    generations.commit(home, generations.without_key(home, label, first))
    assert keys_of(home, label) == {home.live_keys(label)[-1].key}
    assert [key.revoked is None for key in home.signing_keys(label)] == [False, True]


@pytest.mark.parametrize("label", LABELS)
def test_the_key_that_signs_is_not_taken_away(home: OperatorHome, label: str) -> None:
    with pytest.raises(SetupError, match="signs now"):
        generations.without_key(home, label, home.live_keys(label)[-1])


def test_only_the_files_of_the_role_are_issued_anew(home: OperatorHome) -> None:
    own = home.path / "creds" / "orders.creds"
    own.write_text(home.issue_role("service", "orders", services=["orders"]))
    home.service_creds(["ledger"])
    (home.path / "creds" / "notes.creds").write_text("not credentials")
    before = {path.name: path.read_text() for path in home.path.glob("creds/*")}
    assert [path.name for path in rotate(home, "mesh-service")] == [
        "orders.creds",
        "service.ledger.creds",
    ]
    after = {path.name: path.read_text() for path in home.path.glob("creds/*")}
    assert {name for name in before if before[name] != after[name]} == {
        "orders.creds",
        "service.ledger.creds",
    }
    old, new = creds.parse(before["orders.creds"]), creds.parse(after["orders.creds"])
    assert (new.claims.name, new.user.tags) == ("orders", old.user.tags)
    assert new.key.public_key != old.key.public_key
    assert new.claims.iss == home.live_keys("mesh-service")[-1].key


def test_who_has_loaded_the_home_before_issues_by_the_key_of_now(home: OperatorHome) -> None:
    before = OperatorHome.load(home.path)
    rotate(home, "mesh-service")
    issued = creds.parse(before.service_creds(["orders"]).read_text())
    assert issued.claims.iss == home.live_keys("mesh-service")[-1].key


def test_credentials_of_the_mesh_name_the_root(home: OperatorHome) -> None:
    assert creds.root_of(home.issue_role("router", "r")) == home.context_root
    assert creds.root_of(home.issue_role("sys", "s")) is None


def test_tenants_get_theirs_by_the_newest_key_and_all_scopes_are_pushed(
    home: OperatorHome,
) -> None:
    old = home.tenant_key
    rotate(home, plant.TENANT_KEY)
    user = KeyPair.generate(Kind.USER).public_key
    newest = claims.decode(home.tenant_jwt(user, "acme", scope="plan:p")).iss
    former = claims.decode(home.tenant_jwt(user, "acme", scope="plan:p", signer=old)).iss
    pushed = home.validate_edge(home.edge_claims({}, {"plan:p": 5}))
    assert {newest, former} < {scoped.key for scoped in pushed.signing_keys}
    assert newest != former


def test_the_file_of_edge_stays_older_than_what_is_pushed(home: OperatorHome) -> None:
    pushed = claims.decode(home.edge_claims({}))
    rotate(home, plant.TENANT_KEY)
    assert home.account("edge").iat <= pushed.iat
    assert claims.decode(home.edge_claims({})).iat > home.account("edge").iat


def test_another_process_takes_a_change_over(home: OperatorHome) -> None:
    other = OperatorHome.load(home.path)
    assert not other.refresh()
    rotate(home, plant.TENANT_KEY)
    assert other.refresh()
    assert other.tenant_key == home.tenant_key


def test_a_draft_that_came_to_nothing_leaves_no_key(home: OperatorHome) -> None:
    before = {path.name for path in home.path.glob("keys/*")}
    draft = generations.next_key(home, "mesh-router")
    generations.keep_keys(home, draft)
    generations.drop_keys(home, draft)
    assert {path.name for path in home.path.glob("keys/*")} == before


def test_a_home_of_this_version_is_current(home: OperatorHome) -> None:
    assert generations.require_current(home) is home


def test_an_older_home_is_told_how_to_be_upgraded(home: OperatorHome) -> None:
    home.write_manifest(msgspec.structs.replace(home.manifest, format=1))
    with pytest.raises(SetupError, match="older version") as caught:
        generations.require_current(home)
    assert "tenantry keys upgrade" in caught.value.hint
