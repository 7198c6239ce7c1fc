from __future__ import annotations

import shutil
import stat
import time
from pathlib import Path

import msgspec
import pytest

from tenantry.errors import SetupError
from tenantry.operator import OperatorHome, ServerOptions, claims, creds, plant
from tenantry.operator.keys import KeyPair, Kind


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OperatorHome.create(tmp_path_factory.mktemp("operator") / "home", name="shop").path


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> OperatorHome:
    """A home of its own for each test."""
    shutil.copytree(pristine, tmp_path / "home")
    return OperatorHome.load(tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def edit_manifest(home: OperatorHome, **changes: object) -> None:
    path = home.path / "home.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | changes))


# making


def test_all_that_a_server_and_its_clients_need_is_there(home: OperatorHome) -> None:
    files = {str(p.relative_to(home.path)) for p in home.path.rglob("*") if p.is_file()}
    kid = home.context_keys()[0][0]
    assert files == {
        "home.json",
        "operator.jwt",
        "operator.conf",
        "server.conf",
        *(f"accounts/{name}.jwt" for name in ("sys", "edge", "mesh")),
        *(f"creds/{role}.creds" for role in ("router", "control", "sys")),
        *(f"keys/{name}.nk" for name in ("operator", "operator-signing", "sys", "edge", "mesh")),
        *(f"keys/{name}.nk" for name in ("sys-control", "edge-tenant", "context-root")),
        *(f"keys/mesh-{role}.nk" for role in ("router", "service", "control")),
        f"context/{kid}.seed",
        f"context/{kid}.json",
    }


def test_only_the_owner_reads_secrets(pristine: Path) -> None:
    secrets = [p for glob in ("keys/*", "creds/*", "context/*.seed") for p in pristine.glob(glob)]
    assert {mode(path) for path in secrets} == {0o600}


def test_only_the_owner_enters_the_directories(pristine: Path) -> None:
    folders = [pristine, *(path for path in pristine.iterdir() if path.is_dir())]
    assert {mode(path) for path in folders} == {0o700}


def test_no_secret_is_in_the_servers_configuration(pristine: Path) -> None:
    text = (pristine / "operator.conf").read_text() + (pristine / "server.conf").read_text()
    assert not [p for p in pristine.glob("keys/*") if p.read_text().strip() in text]


def test_an_empty_directory_becomes_a_home(tmp_path: Path) -> None:
    assert OperatorHome.create(tmp_path).path == tmp_path


def test_missing_parents_are_made(tmp_path: Path) -> None:
    assert OperatorHome.create(tmp_path / "a" / "b").path.is_dir()


def test_the_name_is_kept(home: OperatorHome) -> None:
    assert home.name == "shop"


def test_two_homes_have_nothing_in_common(home: OperatorHome, tmp_path: Path) -> None:
    other = OperatorHome.create(tmp_path / "other")
    assert other.operator_public_key != home.operator_public_key


def test_a_home_is_not_overwritten(home: OperatorHome) -> None:
    before = (home.path / "operator.jwt").read_text()
    with pytest.raises(SetupError, match="operator home already"):
        OperatorHome.create(home.path)
    assert (home.path / "operator.jwt").read_text() == before


def test_a_directory_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SetupError, match="not empty"):
        OperatorHome.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(SetupError):
        OperatorHome.create(tmp_path / "home")
    assert (tmp_path / "home").read_text() == "x"


def test_a_parent_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SetupError, match="cannot create"):
        OperatorHome.create(tmp_path / "file" / "home")


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plant, "write_manifest", full_disk)
    with pytest.raises(SetupError, match="No space left"):
        OperatorHome.create(tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


# opening


def test_what_was_made_is_opened(home: OperatorHome) -> None:
    again = OperatorHome.load(str(home.path))
    assert again.mesh_public_key == home.mesh_public_key


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="missing"):
        OperatorHome.load(tmp_path / "nothing")


def test_another_directory_is_not_a_home(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nats init"):
        OperatorHome.load(tmp_path)


@pytest.mark.parametrize("file", ["operator.jwt", "accounts/edge.jwt"])
def test_a_missing_file_is_named(home: OperatorHome, file: str) -> None:
    (home.path / file).unlink()
    with pytest.raises(SetupError, match=f"{file} is missing"):
        OperatorHome.load(home.path)


@pytest.mark.parametrize("file", ["home.json", "operator.jwt", "accounts/mesh.jwt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe"])
def test_a_corrupt_file_is_named(home: OperatorHome, file: str, content: bytes) -> None:
    (home.path / file).write_bytes(content)
    with pytest.raises(SetupError, match=file):
        OperatorHome.load(home.path)


def test_a_file_that_can_not_be_read_is_named(home: OperatorHome) -> None:
    (home.path / "operator.jwt").unlink()
    (home.path / "operator.jwt").mkdir()
    with pytest.raises(SetupError, match=r"cannot read .*operator.jwt"):
        OperatorHome.load(home.path)


def test_an_account_of_another_operator_is_refused(home: OperatorHome, tmp_path: Path) -> None:
    other = OperatorHome.create(tmp_path / "other")
    shutil.copy(other.path / "accounts" / "edge.jwt", home.path / "accounts" / "edge.jwt")
    with pytest.raises(SetupError, match="another operator"):
        OperatorHome.load(home.path)


def test_a_newer_format_is_refused_with_the_reason(home: OperatorHome) -> None:
    edit_manifest(home, format=3)
    with pytest.raises(SetupError, match="format 3") as caught:
        OperatorHome.load(home.path)
    assert "newer Tenantry" in caught.value.hint


def test_a_process_may_lack_the_keys_that_it_does_not_use(home: OperatorHome) -> None:
    for path in home.path.glob("keys/*"):
        path.unlink()
    OperatorHome.load(home.path)


# issuing


@pytest.mark.parametrize("role", ["router", "service", "control"])
def test_a_mesh_role_is_signed_by_its_own_key(home: OperatorHome, role: str) -> None:
    services = ["orders"] if role == "service" else []
    parsed = creds.parse(home.issue_role(role, "w1", services=services))
    signer = KeyPair.from_seed((home.path / f"keys/mesh-{role}.nk").read_text())
    assert parsed.claims.iss == signer.public_key
    assert parsed.user.issuer_account == home.mesh_public_key


def test_sys_credentials_belong_to_the_account_sys(home: OperatorHome) -> None:
    assert creds.parse(home.issue_role("sys", "c")).user.issuer_account == home.sys_public_key


def test_each_issue_is_another_user(home: OperatorHome) -> None:
    first, second = home.issue_role("router", "r"), home.issue_role("router", "r")
    assert creds.public_key_of(first) != creds.public_key_of(second)


def test_credentials_of_a_service_name_it(home: OperatorHome) -> None:
    text = home.issue_role("service", "w1", services=["orders", "ledger", "orders"])
    assert creds.own_tags(creds.parse(text).user.tags) == ("service:ledger", "service:orders")
    assert creds.services_of(text) == {"orders", "ledger"}


def test_credentials_of_the_role_service_name_at_least_one(home: OperatorHome) -> None:
    with pytest.raises(SetupError, match="for services that are named"):
        home.issue_role("service", "w1")


def test_no_other_role_is_for_services(home: OperatorHome) -> None:
    with pytest.raises(SetupError, match="the role router is not for services"):
        home.issue_role("router", "r", services=["orders"])


def test_a_service_gets_its_credentials_when_they_are_first_asked_for(home: OperatorHome) -> None:
    path = home.service_creds(["orders", "ledger"])
    assert path == home.path / "creds" / "service.ledger+orders.creds"
    assert mode(path) == 0o600
    assert creds.services_of(path.read_text()) == {"orders", "ledger"}


def test_and_keeps_them(home: OperatorHome) -> None:
    before = home.service_creds(["orders"]).read_text()
    assert home.service_creds(["orders"]).read_text() == before


def test_many_services_have_a_file_with_a_short_name(home: OperatorHome) -> None:
    names = [f"a_service_with_a_long_name_{number}" for number in range(40)]
    path = home.service_creds(names)
    assert len(path.name) < 60
    assert creds.services_of(path.read_text()) == set(names)


def test_a_file_that_is_for_others_is_told(home: OperatorHome) -> None:
    path = home.service_creds(["orders"])
    path.write_text(home.issue_role("service", "x", services=["ledger"]))
    with pytest.raises(SetupError, match="for ledger, not for orders"):
        home.service_creds(["orders"])


def test_an_unknown_role_is_refused(home: OperatorHome) -> None:
    with pytest.raises(SetupError, match="unknown role 'root'"):
        home.issue_role("root", "x")


def test_a_missing_key_is_told_when_it_is_needed(home: OperatorHome) -> None:
    (home.path / "keys/mesh-router.nk").unlink()
    with pytest.raises(SetupError, match=r"mesh-router\.nk is missing"):
        home.issue_role("router", "r")


def test_a_corrupt_key_is_named(home: OperatorHome) -> None:
    (home.path / "keys/mesh-router.nk").write_text("SOgarbage")
    with pytest.raises(SetupError, match=r"mesh-router\.nk"):
        home.issue_role("router", "r")


def test_the_key_of_another_home_is_refused(home: OperatorHome) -> None:
    stranger = KeyPair.generate(Kind.ACCOUNT)
    (home.path / "keys/mesh-router.nk").write_text(stranger.seed)
    with pytest.raises(SetupError, match="another home"):
        home.issue_role("router", "r")


def test_tenant_credentials_carry_the_tenant(home: OperatorHome) -> None:
    assert creds.tenant_of(home.tenant_creds("acme")) == "acme"


def test_tenant_credentials_carry_no_permission_of_their_own(home: OperatorHome) -> None:
    nats = creds.parse(home.tenant_creds("acme")).claims.nats
    assert set(nats) == {"issuer_account", "tags", "type", "version"}


def test_a_tenant_may_bring_its_own_key(home: OperatorHome) -> None:
    own = KeyPair.generate(Kind.USER)
    decoded = claims.decode(home.tenant_jwt(own.public_key, "acme", name="till"))
    assert (decoded.sub, decoded.name) == (own.public_key, "till")


def test_tenant_credentials_may_expire(home: OperatorHome) -> None:
    assert creds.parse(home.tenant_creds("acme", expires=99)).claims.exp == 99


@pytest.mark.parametrize(
    "tenant", ["", "a.b", "*", ">", "Acme", "-a", "a-", "a b", "a\n", "a" * 64, "аcme", "a>", "$js"]
)
def test_what_is_no_tenant_id_gets_no_credentials(home: OperatorHome, tenant: str) -> None:
    with pytest.raises(SetupError, match="not a tenant id"):
        home.tenant_creds(tenant)


@pytest.mark.parametrize("tenant", ["a", "acme", "a-1", "0", "a" * 63])
def test_every_tenant_id_gets_credentials(home: OperatorHome, tenant: str) -> None:
    assert creds.tenant_of(home.tenant_creds(tenant)) == tenant


def test_only_a_user_key_gets_a_tenant_jwt(home: OperatorHome) -> None:
    with pytest.raises(SetupError, match="public key"):
        home.tenant_jwt(home.edge_public_key, "acme")


# the account EDGE


def test_edge_claims_hold_exactly_the_revocations(home: OperatorHome) -> None:
    assert home.validate_edge(home.edge_claims({"U1": 5})).revocations == {"U1": 5}


def test_edge_claims_differ_from_the_first_in_revocations_only(home: OperatorHome) -> None:
    first = home.validate_edge((home.path / "accounts/edge.jwt").read_text())
    assert home.validate_edge(home.edge_claims({})) == first


def test_edge_claims_are_issued_after_the_ones_before(home: OperatorHome) -> None:
    first = claims.decode((home.path / "accounts/edge.jwt").read_text())
    pushed = [claims.decode(home.edge_claims({})) for _ in range(3)]
    times = [document.iat for document in (first, *pushed)]
    assert times == sorted(set(times))


def test_edge_claims_are_not_far_in_the_future(home: OperatorHome) -> None:
    assert claims.decode(home.edge_claims({})).iat <= time.time() + 2


def test_an_edge_jwt_of_another_operator_is_refused(home: OperatorHome) -> None:
    stranger = KeyPair.generate(Kind.OPERATOR)
    forged = claims.encode(claims.Account(), subject=home.edge_public_key, signer=stranger)
    with pytest.raises(SetupError, match="not signed by our operator"):
        home.validate_edge(forged)


def test_the_jwt_of_another_account_is_not_edge(home: OperatorHome) -> None:
    with pytest.raises(SetupError, match="not that of EDGE"):
        home.validate_edge((home.path / "accounts/mesh.jwt").read_text())


# context keys


def test_a_context_key_is_named_after_its_public_key(home: OperatorHome) -> None:
    [(kid, seed)] = home.context_keys()
    assert (len(seed), kid) == (32, plant.kid_of(seed))


def test_a_new_context_key_is_last(home: OperatorHome) -> None:
    first = home.context_keys()[0][0]
    second = home.add_context_key()
    assert [kid for kid, _ in OperatorHome.load(home.path).context_keys()] == [first, second]


@pytest.mark.parametrize("content", ["", "é", "AAAA", "A" * 43 + "="])
def test_a_corrupt_context_key_is_named(home: OperatorHome, content: str) -> None:
    kid = home.context_keys()[0][0]
    (home.path / f"context/{kid}.seed").write_text(content)
    with pytest.raises(SetupError, match=f"{kid}.seed is corrupt"):
        home.context_keys()


# server.conf


def test_the_server_gets_the_options_given(tmp_path: Path) -> None:
    home = OperatorHome.create(tmp_path / "home", server=ServerOptions(port=4333))
    assert "port: 4333" in (home.path / "server.conf").read_text()


def test_server_conf_can_be_written_anew(home: OperatorHome) -> None:
    path = home.write_server_conf(ServerOptions(port=4444))
    assert "port: 4444" in path.read_text()
