"""Carrying one tenant's journal out of a mesh and into another tenant's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantry.bus import Bus, api, store
from tenantry.control import Control
from tenantry.errors import Conflict, JetStreamError
from tenantry.journal import Selection, archive, transfer
from tenantry.journal.transfer import Importer
from tenantry.streams import JOURNAL
from tests.mesh import Entry, Mesh, Program, journal

NAME = "archive.note"


@pytest.fixture
async def filled(acme: Program, control: Bus) -> Program:
    """A tenant with a hundred messages, every second one with an id of its own."""
    for number in range(100):
        fields = {"Tenant-Context": "secret", "Colour": "red", "Nats-TTL": "1h"}
        if number % 2:
            fields["Nats-Msg-Id"] = f"{acme.id}.e.{number}"
        await store(control, f"tenant.{acme.id}.{NAME}", b"%d" % number, headers=fields)
    return acme


async def export(bus: Bus, tenant: str, path: Path) -> archive.Summary:
    wanted = Selection(tenant=tenant, service="archive")
    return await transfer.export(bus, wanted, path)


def importer(bus: Bus, path: Path, tenant: str, **options: Any) -> Importer:
    async def token() -> str:
        return await Control(bus).issue_context(tenant)

    return Importer(bus, path, archive.check(path), tenant=tenant, token=token, **options)


async def entries(bus: Bus, tenant: str) -> list[Entry]:
    return await journal(bus, tenant, NAME)


async def erase(bus: Bus, tenant: str) -> None:
    await api(bus, f"STREAM.PURGE.{JOURNAL}", {"filter": f"journal.*.{tenant}.>"})


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
async def test_what_is_imported_is_what_was_there(
    filled: Program, globex: Program, control: Bus, tmp_path: Path, name: str
) -> None:
    await export(control, filled.id, tmp_path / name)
    done = await importer(control, tmp_path / name, globex.id).run()
    assert (done.count, done.stored, done.before) == (100, 100, 0)
    found = await entries(control, globex.id)
    assert [each.data for each in found] == [b"%d" % number for number in range(100)]
    assert {each.headers["Colour"] for each in found} == {"red"}


async def test_an_import_leaves_the_others_alone(
    filled: Program, globex: Program, small: Program, control: Bus, tmp_path: Path
) -> None:
    before = await journal(control, filled.id)
    others = await journal(control, small.id)
    await export(control, filled.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id).run()
    assert await journal(control, filled.id) == before
    assert await journal(control, small.id) == others


async def test_imported_messages_are_history(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    summary = await export(control, filled.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id, retention=3_600).run()
    originals, found = await entries(control, filled.id), await entries(control, globex.id)
    for original, imported in zip(originals, found, strict=True):
        fields = imported.headers
        assert fields["Tenant-Only"] == "-"
        assert fields["Tenant-Source"] == f"{summary.head.journal}.{original.seq}"
        given = original.headers.get("Nats-Msg-Id", f"journal:{original.seq}")
        assert fields["Tenant-Message-Id"] == given
        assert fields["Nats-TTL"] == "3600s"
        assert fields["Tenant-Context"] not in {"", "secret"}
        assert float(fields["Tenant-Stored"]) > 1.7e9


async def test_delivered_messages_are_new_ones(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id, deliver=True).run()
    found = await entries(control, globex.id)
    assert len(found) == 100
    assert not any("Tenant-Only" in each.headers for each in found)


async def test_what_was_for_one_service_stays_so(
    acme: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    fields = {"Tenant-Only": "ledger"}
    await store(control, f"tenant.{acme.id}.{NAME}", b"x", headers=fields)
    await export(control, acme.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id).run()
    (found,) = await entries(control, globex.id)
    assert found.headers["Tenant-Only"] == "-ledger"
    await export(control, globex.id, tmp_path / "b")
    await importer(control, tmp_path / "b", acme.id, deliver=True).run()
    assert (await entries(control, acme.id))[-1].headers["Tenant-Only"] == "ledger"


async def test_a_dry_run_stores_nothing(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")
    done = await importer(control, tmp_path / "a", globex.id).run(dry=True)
    assert (done.count, done.stored) == (100, 0)
    assert await entries(control, globex.id) == []


async def test_a_second_import_stores_nothing_twice(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id).run()
    done = await importer(control, tmp_path / "a", globex.id).run()
    assert (done.stored, done.before) == (0, 100)
    assert len(await entries(control, globex.id)) == 100


async def test_an_import_goes_on_where_it_was_interrupted(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await importer(control, tmp_path / "a", globex.id).run(tell=stop)
    done = await importer(control, tmp_path / "a", globex.id).run()
    assert 0 < done.before < 100
    assert done.stored == 100 - done.before
    found = await entries(control, globex.id)
    assert [each.data for each in found] == [b"%d" % number for number in range(100)]


async def test_what_was_stored_beyond_a_gap_is_stored_anew(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")
    await importer(control, tmp_path / "a", globex.id).run()
    lost = (await entries(control, globex.id))[90].seq
    await api(control, f"STREAM.MSG.DELETE.{JOURNAL}", {"seq": lost})
    # NATS still knows the ids of what is taken back: for as long, no import is possible.
    with pytest.raises(Conflict, match="a repeat of one that was erased"):
        await importer(control, tmp_path / "a", globex.id).run()
    assert len(await entries(control, globex.id)) == 90


async def test_a_second_file_goes_on_after_the_first(
    filled: Program, globex: Program, control: Bus, tmp_path: Path
) -> None:
    await export(control, filled.id, tmp_path / "a")
    await store(control, f"tenant.{filled.id}.{NAME}", b"later")
    await export(control, filled.id, tmp_path / "b")
    await importer(control, tmp_path / "a", globex.id).run()
    done = await importer(control, tmp_path / "b", globex.id).run()
    assert (done.before, done.stored) == (100, 1)


async def test_an_export_of_what_is_still_there_is_not_imported(
    filled: Program, control: Bus, tmp_path: Path
) -> None:
    summary = await export(control, filled.id, tmp_path / "a")
    with pytest.raises(Conflict, match="still holds"):
        await transfer.check_new(control, summary_of(tmp_path / "a"), filled.id)
    await transfer.check_new(control, summary_of(tmp_path / "a"), "another")
    await erase(control, filled.id)
    await transfer.check_new(control, summary_of(tmp_path / "a"), filled.id)
    assert summary.count == 100


def summary_of(path: Path) -> archive.Summary:
    return archive.check(path)


async def test_a_full_journal_stops_an_import_which_then_goes_on(
    own_mesh: Mesh, tmp_path: Path
) -> None:
    one, two = await own_mesh.tenant(), await own_mesh.tenant()
    async with await own_mesh.insider("control") as control:
        for number in range(100):
            await store(control, f"tenant.{one.stem}.{NAME}", bytes(1000) + b"%d" % number)
        await export(control, one.stem, tmp_path / "a")
        info = await api(control, f"STREAM.INFO.{JOURNAL}")
        config, size = info["config"], info["state"]["bytes"]
        tight = {**config, "max_bytes": int(size * 1.5)}
        await api(control, f"STREAM.UPDATE.{JOURNAL}", tight)
        with pytest.raises(JetStreamError, match="maximum bytes"):
            await importer(control, tmp_path / "a", two.stem).run()
        await api(control, f"STREAM.UPDATE.{JOURNAL}", config)
        done = await importer(control, tmp_path / "a", two.stem).run()
        assert 0 < done.before < 100
        found = await entries(control, two.stem)
        assert [each.data[1000:] for each in found] == [b"%d" % number for number in range(100)]


async def test_when_an_import_has_stopped_nothing_of_it_is_under_way(
    own_mesh: Mesh, tmp_path: Path
) -> None:
    one = await own_mesh.tenant()
    async with await own_mesh.insider("control") as control:
        for number in range(40):
            await store(control, f"tenant.{one.stem}.{NAME}", bytes(20_000) + b"%d" % number)
        await export(control, one.stem, tmp_path / "a")
        info = await api(control, f"STREAM.INFO.{JOURNAL}")
        config, size = info["config"], info["state"]["bytes"]
        for _ in range(10):  # the server may make room before it looks at what has come until then
            two = await own_mesh.tenant()
            tight = {**config, "max_bytes": int(size * 1.2)}
            await api(control, f"STREAM.UPDATE.{JOURNAL}", tight)
            with pytest.raises(JetStreamError, match="maximum bytes"):
                await importer(control, tmp_path / "a", two.stem).run()
            await api(control, f"STREAM.UPDATE.{JOURNAL}", config)
            found = [each.data[20_000:] for each in await entries(control, two.stem)]
            assert found == [b"%d" % number for number in range(len(found))]
            await erase(control, two.stem)


async def test_an_export_over_a_restart_of_nats_is_whole(own_mesh: Mesh, tmp_path: Path) -> None:
    creds = await own_mesh.tenant()

    def blink(count: int) -> None:
        if count == 10:
            own_mesh.backend.kill()
            own_mesh.backend.start()

    async with await own_mesh.insider("control") as control:
        for number in range(600):
            await store(control, f"tenant.{creds.stem}.{NAME}", b"%d" % number)
        wanted = Selection(tenant=creds.stem, service="archive")
        await transfer.export(control, wanted, tmp_path / "a", tell=blink)
    assert archive.check(tmp_path / "a").count == 600
