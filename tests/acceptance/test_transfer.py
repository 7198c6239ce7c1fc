"""`tenantry journal export` and `import`."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tenantry.journal import archive
from tenantry.journal.archive import Head, Line
from tests.acceptance.cli import Cli, soon

ORDERS = '{"orders": [{"sku": "B-2"}]}'
MANY = 20_000


def bodies(mesh: Cli, tenant: str, *options: str) -> list[str]:
    """What was imported of it, as JSON."""
    lines = mesh.ok("journal", tenant, "-o", "json", *options).out.splitlines()
    return [line for line in lines if '"service":"archive"' in line]


def big(path: Path, tenant: str) -> Path:
    """A file with many messages that no service handles."""
    head = Head(
        format=archive.FORMAT,
        version=1,
        tenant=tenant,
        journal="fedcba987654",
        since=1,
        until=MANY + 1,
        exported=1.0,
    )
    with archive.create(path) as file:
        writer = archive.Writer(file, head)
        for seq in range(1, MANY + 1):
            data = b"%d" % seq
            writer.add(Line(seq=seq, time=1.0, action="archive.note", headers={}, data=data))
        writer.finish()
    return path


def test_a_journal_is_carried_to_another_tenant(mesh: Cli, tenant: str) -> None:
    mesh.ok("publish", tenant, "orders.import", ORDERS)
    soon(lambda: "orders.placed" in mesh.ok("journal", tenant).out)
    said = mesh.ok("journal", "export", tenant, "one.jsonl.gz").out.splitlines()
    assert said[0] == f"exported 3 messages of {tenant} to one.jsonl.gz"
    assert re.fullmatch(r"sha256: [0-9a-f]{64}", said[1])
    mesh.ok("tenants", "create", "the-other")
    done = mesh.ok("journal", "import", "one.jsonl.gz", "--as", "the-other").out
    assert done == "imported 3 messages for the-other\n"
    actions = mesh.ok("journal", "the-other").out
    assert "orders.import" in actions


@pytest.mark.parametrize(
    "span", [("--since", "99999999"), ("--since", "2099-01-01"), ("--until", "1h")]
)
def test_a_span_without_messages_is_no_export(
    mesh: Cli, tenant: str, span: tuple[str, str]
) -> None:
    error = mesh.fails("journal", "export", tenant, "none.jsonl", *span)
    assert error == f"not_found: the journal holds nothing of {tenant} in this span"
    assert not (mesh.folder / "none.jsonl").exists()


def test_a_span_is_exported(mesh: Cli, tenant: str) -> None:
    mesh.ok("publish", tenant, "orders.import", ORDERS)
    second = int(mesh.ok("publish", tenant, "orders.import", ORDERS).out)
    mesh.ok("journal", "export", tenant, "span.jsonl", "--since", f"{second}")
    assert archive.check(mesh.folder / "span.jsonl").head.since == second
    mesh.ok("journal", "export", tenant, "before.jsonl", "--since", "1h", "--until", f"{second}")
    assert archive.check(mesh.folder / "before.jsonl").head.until == second


def test_an_export_does_not_write_over_a_file(mesh: Cli, tenant: str) -> None:
    mesh.write("precious", "x")
    error = mesh.fails("journal", "export", tenant, "precious")
    assert error == "setup: precious exists already (name another file, or give --force)"
    mesh.ok("journal", "export", tenant, "precious", "--force")


def test_a_broken_file_is_refused_before_anything_is_written(mesh: Cli, tenant: str) -> None:
    path = big(mesh.folder / "broken.jsonl", tenant)
    path.write_bytes(path.read_bytes()[:-100])
    error = mesh.fails("journal", "import", "broken.jsonl")
    assert error == (
        "setup: broken.jsonl is cut short: its last line is missing (nothing was imported)"
    )
    assert bodies(mesh, tenant) == []


def test_a_dry_run_says_what_is_to_do(mesh: Cli, tenant: str) -> None:
    big(mesh.folder / "dry.jsonl", tenant)
    said = mesh.ok("journal", "import", "dry.jsonl", "--dry-run").out
    assert said == f"would import {MANY} messages for {tenant}\n"
    assert bodies(mesh, tenant) == []


def test_an_unknown_tenant_is_told(mesh: Cli) -> None:
    big(mesh.folder / "ghost.jsonl", "ghost")
    error = mesh.fails("journal", "import", "ghost.jsonl")
    assert "make it with `tenantry tenants create ghost`, or give --as" in error


def test_what_is_still_there_is_not_imported_again(mesh: Cli, tenant: str) -> None:
    mesh.ok("journal", "export", tenant, "same.jsonl")
    assert "still holds messages" in mesh.fails("journal", "import", "same.jsonl")


def test_a_killed_import_goes_on(mesh: Cli, tenant: str) -> None:
    big(mesh.folder / "killed.jsonl", tenant)
    process = mesh.start("journal", "import", "killed.jsonl")
    soon(lambda: len(bodies(mesh, tenant, "--limit", "1000")) > 900)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = mesh.ok("journal", "import", "killed.jsonl", "-o", "json").json
    assert said["stored"] + said["before"] == MANY
    shown = bodies(mesh, tenant)
    numbers = [int(re.search(r'"body":(\d+)', each)[1]) for each in shown]  # type: ignore[index]
    assert numbers == list(range(1, MANY + 1))


def test_a_killed_export_leaves_no_file_and_is_run_again(mesh: Cli, tenant: str) -> None:
    big(mesh.folder / "source.jsonl", tenant)
    mesh.ok("journal", "import", "source.jsonl")
    part = mesh.folder / "out.jsonl.part"
    process = mesh.start("journal", "export", tenant, "out.jsonl")
    soon(lambda: part.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    if process.wait() == -signal.SIGKILL:
        assert not (mesh.folder / "out.jsonl").exists()
        mesh.ok("journal", "export", tenant, "out.jsonl")
    assert archive.check(mesh.folder / "out.jsonl").count == MANY + 1
    assert not part.exists()
