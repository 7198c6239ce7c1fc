"""Keys on a live mesh: what a rotation changes, and each kind taken away at once."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from tenantry import errors
from tenantry.bus import Bucket, Bus, store
from tenantry.context.token import Minter
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome, certificate, generations, plant
from tenantry.operator.keys import KeyPair, Kind
from tenantry_workers.router import RouterWorker
from tests.isolation.keys import ROLES, Keys, asked, copied
from tests.mesh import Mesh, eventually, journal
from tests.services import notes


@pytest.fixture
def serving(own_mesh: Mesh) -> Mesh:
    """A mesh that answers."""
    own_mesh.start(own_mesh.worker(notes))
    return own_mesh


def mint(seed: bytes, tenant: str, kid: str) -> str:
    return Minter(kid, seed).mint(tenant, "business", "edge")


async def forged(insider: Bus, tenant: str, token: str) -> str:
    """What a service says to a request with this context; the code of its refusal."""
    answer = await insider.call(
        f"request.{tenant}.notes.echo", b'{"text": "x"}', headers={"Tenant-Context": token}
    )
    return str(msgspec.json.decode(answer.data).get("code", ""))


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
