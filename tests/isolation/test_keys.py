"""Keys on a live mesh: each kind is rotated under load, and taken away at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantry import errors
from tenantry.bus import Bucket, Bus, store
from tenantry.context.token import Minter
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome, certificate, claims, generations, plant
from tenantry.operator.keys import KeyPair, Kind
from tenantry_workers.router import RouterWorker
from tests.isolation.load import loaded
from tests.mesh import Mesh, Program, eventually, journal
from tests.services import notes

ROLES = ("router", "service", "control", "sys")


class Keys:
    """`tenantry keys …` for one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed; what it prints."""
        done = await self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def fails(self, *arguments: str) -> str:
        """Run a command that must fail with one line; that line."""
        done = await self.run(*arguments)
        assert done.returncode != 0
        assert done.stderr.strip().count("\n") == 0, done.stderr
        return done.stderr.strip()

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        at = ("--url", self._mesh.url, "--home", str(self._mesh.home.path))
        command = [sys.executable, "-m", "tenantry", "keys", *arguments, *at]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=120
        )

    async def list(self) -> list[dict[str, Any]]:
        return list(msgspec.json.decode(await self("list", "-o", "json")))

    async def id(self, kind: str, state: str = "current") -> str:
        """The newest key of a kind in this state."""
        rows = [r for r in await self.list() if r["kind"] == kind and r["state"] == state]
        return str(rows[-1]["id"])


@pytest.fixture
def keys(own_mesh: Mesh) -> Keys:
    return Keys(own_mesh)


@pytest.fixture
def serving(own_mesh: Mesh) -> Mesh:
    """A mesh that answers."""
    own_mesh.start(own_mesh.worker(notes))
    return own_mesh


@contextlib.contextmanager
def copied(mesh: Mesh, role: str) -> Iterator[Path]:
    """Credentials of a role that nobody gives new ones: a thief's."""
    path = mesh.folder / f"stolen-{role}.creds"
    own = mesh.home.service_creds(["notes"]) if role == "service" else mesh.home.creds_path(role)
    shutil.copy(own, path)
    yield path


async def asked(program: Program) -> str:
    return (await program.ask("notes.echo", {"text": "x"})).code


def mint(seed: bytes, tenant: str, kid: str) -> str:
    return Minter(kid, seed).mint(tenant, "business", "edge")


async def forged(insider: Bus, tenant: str, token: str) -> str:
    """What a service says to a request with this context; the code of its refusal."""
    answer = await insider.call(
        f"request.{tenant}.notes.echo", b'{"text": "x"}', headers={"Tenant-Context": token}
    )
    return str(msgspec.json.decode(answer.data).get("code", ""))


# under load


@pytest.mark.slow
async def test_context_keys_rotate_under_load(own_mesh: Mesh, keys: Keys) -> None:
    own_mesh.start(RouterWorker(own_mesh.options()))
    async with loaded(own_mesh) as load:
        for _ in range(2):
            old = await keys.id("context")
            await keys("rotate", "context")
            await load.goes_on()
            assert await keys.id("context") != old
            assert await keys.id("context", "retired") == old


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
async def test_the_key_of_a_role_rotates_under_load(own_mesh: Mesh, keys: Keys, role: str) -> None:
    own_mesh.start(RouterWorker(own_mesh.options()))
    async with loaded(own_mesh) as load:
        old = await keys.id(role)
        await keys("rotate", role, "--overlap", "60")
        await load.goes_on()
        assert await keys.id(role, "revoked") == old


@pytest.mark.slow
async def test_one_router_and_one_worker_rotate_without_a_failure(
    own_mesh: Mesh, keys: Keys
) -> None:
    async with loaded(own_mesh) as load:
        await keys("rotate", "router", "--overlap", "60")
        await keys("rotate", "service", "--overlap", "60")
        await load.goes_on()


@pytest.mark.slow
async def test_the_tenants_key_rotates_under_load(own_mesh: Mesh, keys: Keys) -> None:
    async with loaded(own_mesh) as load:
        await keys("rotate", "tenants")
        await load.goes_on()
        async with own_mesh.program() as new:
            assert await asked(new) == ""


@pytest.mark.slow
async def test_all_that_was_rotated_outlives_a_restart_of_nats(own_mesh: Mesh, keys: Keys) -> None:
    with copied(own_mesh, "router") as stolen:
        for kind in ("context", "tenants"):
            await keys("rotate", kind)
        for role in ROLES:
            await keys("rotate", role, "--overlap", "60")
        await asyncio.to_thread(own_mesh.backend.restart)
        with pytest.raises(errors.ConnectionFailed):
            await Bus.connect(own_mesh.url, creds=stolen)
    own_mesh.start(own_mesh.worker(notes))
    async with own_mesh.program() as program:
        await own_mesh.ready(program, "notes.echo")
        assert await asked(program) == ""


@pytest.mark.slow
async def test_an_account_by_a_replaced_operators_key_is_refused(
    own_mesh: Mesh, keys: Keys
) -> None:
    stolen = OperatorHome.load(own_mesh.home.path)
    stolen._key(plant.OPERATOR_KEY)  # as the thief has it
    await keys("rotate", "operator")
    await asyncio.to_thread(own_mesh.backend.restart)
    home = OperatorHome.load(own_mesh.home.path)
    with pytest.raises(errors.SetupError, match="not signed by our operator"):
        home.validate_edge(stolen.edge_claims({}))
    own_mesh.start(own_mesh.worker(notes))
    async with own_mesh.program() as program:
        await own_mesh.ready(program, "notes.echo")
        assert await asked(program) == ""


# context keys


async def test_a_router_takes_the_new_context_key_without_a_restart(
    serving: Mesh, keys: Keys
) -> None:
    async with serving.program() as program:
        await keys("rotate", "context")
        new = await keys.id("context")
        await program.ask("notes.remember", {"text": "x"})
        async with await serving.insider("control") as control:
            stored = (await journal(control, program.id, "notes.remember"))[-1]
    head = stored.headers["Tenant-Context"].partition(".")[0]
    assert new in str(msgspec.json.decode(_unpadded(head)))


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_a_rotation_that_was_begun_is_finished(own_mesh: Mesh, keys: Keys) -> None:
    begun = own_mesh.home.add_context_key()
    assert await keys.id("context", "next") == begun
    await keys("rotate", "context")
    assert await keys.id("context") == begun


async def test_two_commands_do_not_change_keys_at_once(own_mesh: Mesh, keys: Keys) -> None:
    with generations.locked(own_mesh.home):
        assert "another command" in await keys.fails("rotate", "context")


async def test_a_router_without_the_new_seed_goes_on_with_the_old_key(
    own_mesh: Mesh, keys: Keys, tmp_path: Path
) -> None:
    apart = tmp_path / "apart"
    shutil.copytree(own_mesh.home.path, apart)
    options = own_mesh.options()
    own_mesh.start(own_mesh.worker(notes))
    own_mesh.start(RouterWorker(dataclasses.replace(options, home=apart)))
    home, old = OperatorHome.load(own_mesh.home.path), await keys.id("context")
    kid = home.add_context_key()
    async with await own_mesh.insider("control") as control:
        record = home.certify(
            msgspec.structs.replace(
                plant.read_verify_key(home.path, kid), active=time.time(), serial=2
            )
        )
        await Bucket(control, "keys", VerifyKey).put(f"context.{kid}", record)
        async with own_mesh.program() as program:
            for _ in range(20):
                assert await asked(program) == ""
    used = {row["id"]: row["used_by"] for row in await keys.list() if row["kind"] == "context"}
    assert (len(used[old]), len(used[kid])) == (1, 2)


async def test_a_revoked_context_key_signs_nothing_any_more(serving: Mesh, keys: Keys) -> None:
    kid, seed = serving.home.context_keys()[-1]
    async with serving.program() as program, await serving.insider("service", "notes") as insider:
        token = mint(seed, program.id, kid)
        assert await forged(insider, program.id, token) == ""  # as the worker now has it at hand
        await keys("revoke", "context", kid)
        assert await forged(insider, program.id, token) == "bad_context"
        assert await forged(insider, program.id, mint(seed, program.id, kid)) == "bad_context"
        assert await asked(program) == ""


@pytest.mark.parametrize(("since", "handled"), [((), False), (("--since", "1s"), True)])
async def test_what_waits_in_the_journal_counts_only_if_it_is_older_than_the_theft(
    own_mesh: Mesh, keys: Keys, since: tuple[str, ...], handled: bool
) -> None:
    kid, seed = own_mesh.home.context_keys()[-1]
    async with own_mesh.program() as program, await own_mesh.insider("service", "notes") as insider:
        fields = {"Tenant-Context": mint(seed, program.id, kid)}
        await store(
            insider, f"tenant.{program.id}.notes.remember", b'{"text": "old"}', headers=fields
        )
        await asyncio.sleep(1.5)  # as old as it is said to be
        await keys("revoke", "context", kid, *since)
        await store(
            insider, f"tenant.{program.id}.notes.remember", b'{"text": "new"}', headers=fields
        )
        own_mesh.start(own_mesh.worker(notes))
        await own_mesh.ready(program, "notes.echo")
        await program.ask("notes.remember", {"text": "last"})

        async def done() -> bool:
            return "last" in await program.texts()

        await eventually(done)
        assert await program.texts() == (["old", "last"] if handled else ["last"])


async def test_a_verify_key_that_a_service_has_inserted_verifies_nothing(serving: Mesh) -> None:
    """No permission stops the way: JetStream answers wherever it is told (decision 5)."""
    seed = b"\7" * 32
    kid = plant.kid_of(seed)
    key = Minter(kid, seed).public_key
    record = VerifyKey(kid=kid, key=key, created=1.0, active=time.time(), serial=9)
    async with serving.program() as program, await serving.insider("service", "notes") as insider:
        place = f"$KV.state.{program.id}.notes.record"
        await store(insider, place, msgspec.json.encode(record))
        await insider.publish(
            f"$JS.API.DIRECT.GET.KV_state.{place}", reply=f"$KV.keys.context.{kid}"
        )
        async with await serving.insider("control") as control:
            bucket = Bucket(control, "keys", VerifyKey)

            async def inserted() -> bool:
                return await bucket.get(f"context.{kid}") is not None

            await eventually(inserted)
        assert await forged(insider, program.id, mint(seed, program.id, kid)) == "bad_context"


@pytest.mark.parametrize("how", ["deleted", "older", "forged"])
async def test_a_record_that_is_tampered_with_is_put_right(
    own_mesh: Mesh, keys: Keys, how: str
) -> None:
    kid = await keys.id("context")
    async with await own_mesh.insider("control") as control:
        bucket = Bucket(control, "keys", VerifyKey)
        older = await bucket.get(f"context.{kid}")
        await keys("rotate", "context")
        good = await bucket.get(f"context.{kid}")
        assert older is not None
        assert good is not None
        if how == "deleted":
            await bucket.delete(f"context.{kid}")
        elif how == "older":
            await bucket.put(f"context.{kid}", older.value)
        else:
            stranger = KeyPair.generate(Kind.ACCOUNT)
            await bucket.put(f"context.{kid}", certificate.certify(good.value, stranger))

        async def right() -> bool:
            entry = await bucket.get(f"context.{kid}")
            return entry is not None and entry.value == good.value

        await eventually(right)


# tenants' signing key


async def test_a_revoked_tenants_key_voids_what_it_signed_at_once(
    serving: Mesh, keys: Keys
) -> None:
    async with serving.program() as old:
        first = await keys.id("tenants")
        await keys("rotate", "tenants")
        async with serving.program() as new:
            await keys("revoke", "tenants", first, "--yes")
            with pytest.raises(errors.ConnectionFailed):
                await serving.client(old.creds)

            async def cut() -> bool:
                return not old.plain.is_connected

            await eventually(cut)
            await serving.ready(new, "notes.echo")
            assert await asked(new) == ""


async def test_revoking_the_tenants_key_asks_first(serving: Mesh, keys: Keys) -> None:
    async with serving.program() as program:
        first = await keys.id("tenants")
        await keys("rotate", "tenants")
        done = await keys.run("revoke", "tenants", first)
        assert (done.returncode, f"{program.id}: 1" in done.stderr) == (2, True)
        assert await asked(program) == ""


@pytest.mark.parametrize("kind", ["tenants", *ROLES])
async def test_the_key_that_signs_is_not_revoked(keys: Keys, kind: str) -> None:
    told = await keys.fails("revoke", kind, await keys.id(kind), "--yes", "--force")
    assert "rotate first" in told


# roles


@pytest.mark.parametrize("role", ROLES)
async def test_a_revoked_role_key_is_of_no_use_at_once(
    own_mesh: Mesh, keys: Keys, role: str
) -> None:
    with copied(own_mesh, role) as stolen:
        thief = await Bus.connect(own_mesh.url, creds=stolen, name="thief", patience=1.0)
        old = await keys.id(role)
        await keys("rotate", role)
        assert "thief" in await keys.fails("revoke", role, old)
        assert thief.connected
        await keys("revoke", role, old, "--force")

        async def cut() -> bool:
            return not thief.connected

        await eventually(cut)
        with pytest.raises(errors.ConnectionFailed):
            await Bus.connect(own_mesh.url, creds=stolen)
        await thief.close()


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
    keys: Keys, arguments: tuple[str, ...], told: str
) -> None:
    assert told in await keys.fails(*arguments)


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
