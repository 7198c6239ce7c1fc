"""`tenantry keys …` where it is misused, where a key is missing, and on an older directory."""

from __future__ import annotations

import msgspec
import pytest

from tenantry import errors
from tenantry.operator import claims
from tests.isolation.keys import ROLES, Keys
from tests.mesh import Mesh


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rotate", "context", "--overlap", "5"), "--overlap is for the keys of roles"),
        (("rotate", "router", "--overlap", "-1"), "at least 0"),
        (("rotate", "nothing"), "nothing"),
        (("revoke", "router", "nothing"), "no key 'nothing' of router"),
        (("revoke", "context", "nothing"), "no context key 'nothing'"),
        (("revoke", "router", "x", "--since", "2h"), "--since is for context keys"),
        (("revoke", "context", "x", "--since", "soon"), "'soon' is no time"),
        (("revoke", "context", "x", "--since", "2099-01-01"), "lies in the future"),
    ],
)
async def test_what_makes_no_sense_is_told_in_one_line(
    mesh: Mesh, arguments: tuple[str, ...], told: str
) -> None:
    assert told in await Keys(mesh).fails(*arguments)


@pytest.mark.parametrize("kind", ["tenants", *ROLES])
async def test_the_key_that_signs_is_not_revoked(mesh: Mesh, kind: str) -> None:
    keys = Keys(mesh)
    told = await keys.fails("revoke", kind, await keys.id(kind), "--yes", "--force")
    assert "rotate first" in told


async def test_without_the_operators_own_key_its_signing_key_stays(
    own_mesh: Mesh, keys: Keys
) -> None:
    before = (own_mesh.home.path / "operator.jwt").read_text()
    (own_mesh.home.path / "keys/operator.nk").unlink()
    assert "operator.nk is missing" in await keys.fails("rotate", "operator")
    assert (own_mesh.home.path / "operator.jwt").read_text() == before


async def test_without_the_root_nothing_is_begun(own_mesh: Mesh, keys: Keys) -> None:
    (own_mesh.home.path / "keys/context-root.nk").unlink()
    assert "context-root.nk is missing" in await keys.fails("rotate", "context")
    assert len([row for row in await keys.list() if row["kind"] == "context"]) == 1


# an older operator's directory


async def test_an_older_directory_is_upgraded_on_the_running_server(
    own_mesh: Mesh, keys: Keys
) -> None:
    home = own_mesh.home.path
    manifest = msgspec.json.decode((home / "home.json").read_bytes())
    for field in ("signing", "context_root"):
        del manifest[field]
    (home / "home.json").write_bytes(msgspec.json.encode(manifest | {"format": 1}))
    for path in (*home.glob("context/*.json"), home / "keys/context-root.nk"):
        path.unlink()
    assert "tenantry keys upgrade" in await keys.fails("rotate", "context")
    with pytest.raises(errors.SetupError, match="tenantry keys upgrade"):
        own_mesh.options().operator_home()
    await keys("upgrade")
    own_mesh.options().operator_home()
    assert "as this version has it" in await keys("upgrade")


async def test_the_permissions_of_this_version_are_pushed_by_an_upgrade(
    own_mesh: Mesh, keys: Keys
) -> None:
    home = own_mesh.home
    document = home.account("mesh")
    account = claims.read(document, claims.Account)
    older = msgspec.structs.replace(account, signing_keys=account.signing_keys[:1])
    jwt = home.sign_account("mesh", older, document.iat + 1)
    (home.path / "accounts/mesh.jwt").write_text(jwt)
    async with await own_mesh.insider("sys") as system:
        await system.call("$SYS.REQ.CLAIMS.UPDATE", jwt.encode())
    with pytest.raises(errors.ConnectionFailed):
        await own_mesh.insider("service", "notes")
    with pytest.raises(errors.SetupError, match=r"other permissions than this version \(MESH\)"):
        own_mesh.options().operator_home()
    await keys("upgrade")
    async with await own_mesh.insider("service", "notes"):
        own_mesh.options().operator_home()
