"""Exports, imports and backups: files hold one tenant's messages, and an import reaches one."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenantry.bus import Bus
from tenantry.control import Control
from tenantry.errors import BadSubject, SetupError, TenantryError
from tenantry.journal import Selection, archive, backup, transfer
from tenantry.journal.archive import Head, Line
from tenantry.journal.transfer import Importer
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program, eventually, journal

NAME = "notes.remember"


async def export(bus: Bus, tenant: str, path: Path) -> archive.Summary:
    return await transfer.export(bus, Selection(tenant=tenant), path)


async def load(bus: Bus, path: Path, tenant: str, *, deliver: bool = False) -> None:
    """Import a file for a tenant, as the command line does it."""

    async def token() -> str:
        return await Control(bus).issue_context(tenant)

    summary = archive.check(path)
    await Importer(bus, path, summary, tenant=tenant, token=token, deliver=deliver).run()


async def remembering(program: Program, text: str) -> None:
    await program.client.publish(NAME, {"text": text})

    async def has() -> bool:
        return text in await program.texts()

    await eventually(has)


def head(tenant: str) -> Head:
    return Head(
        format=archive.FORMAT,
        version=archive.VERSION,
        tenant=tenant,
        journal="0123456789ab",
        since=1,
        until=9,
        exported=1.0,
    )


def doctored(path: Path, tenant: str, **fields: Any) -> Path:
    """A file that is whole and says of itself that it is; its one message is as one likes."""
    message = {"action": NAME, "headers": {}, "data": b'{"text": "doctored"}', **fields}
    with archive.create(path) as file:
        writer = archive.Writer(file, head(tenant))
        writer.add(Line(seq=1, time=1.0, **message))
        writer.finish()
    return path


# what an export holds


@cannot(73, Layer.STORE)
async def test_an_export_holds_nothing_of_a_neighbour(
    mesh: Mesh, control: Bus, tmp_path: Path
) -> None:
    async with mesh.neighbours() as (acme, globex):
        for number in range(5):
            await remembering(acme, f"acme-canary-{number}")
            await remembering(globex, f"globex-canary-{number}")
        await export(control, acme.id, tmp_path / "a")
        lines = [line for line in archive.read(tmp_path / "a") if line.action == NAME]
        assert [json.loads(line.data)["text"] for line in lines] == [
            f"acme-canary-{number}" for number in range(5)
        ]
        assert globex.id.encode() not in (tmp_path / "a").read_bytes().split(b"\n", 1)[0]


@cannot(67, Layer.STORE)
@cannot(73, Layer.STORE)
async def test_an_export_holds_nothing_of_one_whose_id_begins_with_it(
    mesh: Mesh, control: Bus, tmp_path: Path
) -> None:
    async with mesh.program("exported") as short, mesh.program("exported-too") as long:
        await remembering(short, "of the short one")
        await remembering(long, "of the long one")
        await export(control, short.id, tmp_path / "a")
        texts = [json.loads(each.data).get("text") for each in archive.read(tmp_path / "a")]
        assert "of the short one" in texts
        assert "of the long one" not in texts


@can(73)
async def test_an_export_holds_all_of_its_tenant(
    acme: Program, control: Bus, tmp_path: Path
) -> None:
    await remembering(acme, "mine")
    summary = await export(control, acme.id, tmp_path / "a")
    assert summary.count == len(await journal(control, acme.id))


@cannot(72, Layer.CLI)
async def test_an_export_holds_no_context(acme: Program, control: Bus, tmp_path: Path) -> None:
    await remembering(acme, "mine")
    (entry,) = await journal(control, acme.id, NAME)
    await export(control, acme.id, tmp_path / "a")
    assert entry.headers["Tenant-Context"].encode() not in (tmp_path / "a").read_bytes()
    assert all("Tenant-Context" not in line.headers for line in archive.read(tmp_path / "a"))


@cannot(2, Layer.GRAMMAR)
@cannot(3, Layer.GRAMMAR)
@pytest.mark.parametrize("tenant", ["*", ">", "a.b"])
async def test_an_export_is_of_one_tenant(control: Bus, tmp_path: Path, tenant: str) -> None:
    with pytest.raises(BadSubject):
        await export(control, tenant, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


# into which tenant an import goes


@cannot(74, Layer.CLI)
async def test_an_import_goes_to_the_tenant_it_is_told_and_no_other(
    acme: Program, globex: Program, small: Program, control: Bus, tmp_path: Path
) -> None:
    await remembering(acme, "mine")
    await export(control, acme.id, tmp_path / "a")
    before = [await journal(control, each.id) for each in (acme, small)]
    await load(control, tmp_path / "a", globex.id)
    assert [await journal(control, each.id) for each in (acme, small)] == before


@cannot(74, Layer.CLI)
async def test_a_file_that_says_it_is_another_tenants_is_refused(
    acme: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await remembering(acme, "mine")
    await export(control, acme.id, path := tmp_path / "a")
    renamed = path.read_bytes().replace(
        b'"tenant":"%s"' % acme.id.encode(), b'"tenant":"%s"' % globex.id.encode(), 1
    )
    path.write_bytes(renamed)
    with pytest.raises(SetupError, match="was altered"):
        archive.check(path)


@can(74)
async def test_an_import_of_a_tenants_own_file_brings_it_back(
    acme: Program, control: Bus, tmp_path: Path
) -> None:
    await load(control, doctored(tmp_path / "a", acme.id), acme.id, deliver=True)

    async def has() -> bool:
        return await acme.texts() == ["doctored"]

    await eventually(has)


# what is written into a file by hand


@cannot(75, Layer.GRAMMAR)
@pytest.mark.parametrize(
    "action",
    [
        "*.*",
        "notes.>",
        "{other}.notes.remember",
        "notes.remember.{other}",
        "notes.remember\r\nPUB tenant.{other}.notes.remember 2\r\n{{}}",
        "notes. ",
        "",
        ".",
        "Notes.remember",
        "notes",
    ],
)
def test_a_file_with_an_action_that_is_none_is_refused(tmp_path: Path, action: str) -> None:
    path = doctored(tmp_path / "a", "acme", action=action.format(other="globex"))
    with pytest.raises(SetupError, match="names no action"):
        archive.check(path)


@cannot(75, Layer.GRAMMAR)
@pytest.mark.parametrize("tenant", ["*", ">", "acme.globex", "$KV", "", "a b", "acme\n"])
def test_a_file_of_what_is_no_tenant_is_refused(tmp_path: Path, tenant: str) -> None:
    path = doctored(tmp_path / "a", tenant)
    with pytest.raises(SetupError, match="is no exported journal"):
        archive.check(path)


@cannot(75, Layer.CLI)
async def test_headers_written_into_a_file_reach_no_other_tenant(
    mesh: Mesh, acme: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    forged = mesh.minter().mint(globex.id, "business", "eve")
    fields = {
        "Tenant-Context": forged,
        "Nats-Msg-Id": f"{globex.id}.e.same",
        "Nats-Expected-Stream": "DEAD",
        "Nats-Rollup": "all",
        "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
        "Nats-Schedule-Target": f"due.{globex.id}.notes.{'0' * 32}",
        "X-Own": f"a\r\nTenant-Context: {forged}",
    }
    await remembering(globex, "theirs")
    before = await journal(control, globex.id)
    path = doctored(tmp_path / "a", acme.id, headers=fields)
    await load(control, path, acme.id, deliver=True)

    async def has() -> bool:
        return await acme.texts() == ["doctored"]

    await eventually(has)
    (entry,) = await journal(control, acme.id, NAME)
    assert forged != entry.headers["Tenant-Context"]
    assert not {"Nats-Rollup", "Nats-Schedule", "Nats-Expected-Stream"} & entry.headers.keys()
    assert await journal(control, globex.id) == before
    stored = await globex.client.publish(NAME, {"text": "again"}, msg_id="same")
    assert not stored.duplicate


@cannot(75, Layer.CONTEXT, without=Layer.CLI)
async def test_a_context_written_into_a_file_is_handled_by_nobody(
    mesh: Mesh,
    acme: Program,
    globex: Program,
    control: Bus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the import passed on the context that the file has."""
    forged = mesh.minter().mint(globex.id, "business", "eve")
    path = doctored(tmp_path / "a", acme.id)
    headers = Importer._headers

    def passing(self: Importer, line: Line, token: str) -> dict[str, str]:
        return headers(self, line, forged)

    monkeypatch.setattr(Importer, "_headers", passing)
    await load(control, path, acme.id, deliver=True)
    await acme.client.publish(NAME, {"text": "good"})

    async def has() -> bool:
        return await acme.texts() == ["good"]

    await eventually(has)
    assert await globex.texts() == []


@cannot(75, Layer.GRAMMAR)
@pytest.mark.parametrize("name", ["X\r\nTenant-Context", "X: y\r\nTenant-Context", "X Y", "ü"])
async def test_a_header_that_can_not_be_named_so_is_refused_or_harmless(
    mesh: Mesh, acme: Program, control: Bus, tmp_path: Path, name: str
) -> None:
    forged = mesh.minter().mint(acme.id, "business", "eve")
    path = doctored(tmp_path / "a", acme.id, headers={name: forged})
    with pytest.raises(TenantryError):
        await load(control, path, acme.id, deliver=True)
    assert await journal(control, acme.id, NAME) == []


@can(75)
async def test_a_programs_own_headers_are_imported(
    acme: Program, control: Bus, tmp_path: Path
) -> None:
    await load(control, doctored(tmp_path / "a", acme.id, headers={"Colour": "red"}), acme.id)
    (entry,) = await journal(control, acme.id, NAME)
    assert entry.headers["Colour"] == "red"


# who may read the files


@pytest.fixture
def wide() -> Iterator[None]:
    """A shell that takes no care of who may read what it makes."""
    before = os.umask(0)
    yield
    os.umask(before)


@cannot(72, Layer.CLI)
async def test_an_export_is_for_its_owner_alone(
    acme: Program, control: Bus, tmp_path: Path, wide: None
) -> None:
    for name in ("a.jsonl", "a.jsonl.gz"):
        await export(control, acme.id, tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@cannot(72, Layer.CLI)
async def test_a_backup_is_for_its_owner_alone(own_mesh: Mesh, tmp_path: Path, wide: None) -> None:
    async with await own_mesh.insider("control") as control:
        await backup.take(control, tmp_path / "backup", version="0")
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
