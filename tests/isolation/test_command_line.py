"""The command line: whose credentials a command takes, and who may read what it writes."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.local.state import StateFolder
from tenantry.operator import OperatorHome
from tests.acceptance.cli import Inside
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh

ECHO = ("notes.echo", '{"text": "x"}')


@pytest.fixture
def cli(mesh: Mesh, tmp_path: Path) -> Inside:
    """The command line in an empty folder, beside the mesh that tests share."""
    cli = Inside(tmp_path)
    cli.env["TENANTRY_URL"] = mesh.url
    cli.env["TENANTRY_HOME"] = str(mesh.home.path)
    return cli


@pytest.fixture
def acme(mesh: Mesh, cli: Inside) -> str:
    """A tenant whose credentials are in the folder."""
    return made(mesh, cli)


@pytest.fixture
def globex(mesh: Mesh, cli: Inside) -> str:
    return made(mesh, cli)


def made(mesh: Mesh, cli: Inside) -> str:
    async def known() -> Path:
        async with mesh.program() as program:
            return program.creds

    creds = asyncio.run(known())
    cli.write(creds.name, creds.read_text())
    return creds.stem


# whose credentials


@cannot(71, Layer.CLI, Layer.SERVER)
@pytest.mark.parametrize("command", ["request", "publish"])
def test_one_tenants_credentials_are_not_taken_for_another(
    cli: Inside, acme: str, globex: str, command: str
) -> None:
    error = cli.fails(command, globex, *ECHO, "--creds", f"{acme}.creds")
    assert f"holds credentials of the tenant {acme}, not of the tenant {globex}" in error


@cannot(71, Layer.CLI)
def test_nor_where_the_environment_names_them(cli: Inside, acme: str, globex: str) -> None:
    cli.env["TENANTRY_CREDS"] = f"{acme}.creds"
    error = cli.fails("request", globex, *ECHO)
    assert f"not of the tenant {globex}" in error


@cannot(71, Layer.CLI)
def test_a_file_that_is_named_after_another_tenant_does_not_make_it_that_tenants(
    cli: Inside, acme: str, globex: str
) -> None:
    (cli.folder / f"{globex}.creds").write_text((cli.folder / f"{acme}.creds").read_text())
    assert f"holds credentials of the tenant {acme}" in cli.fails("request", globex, *ECHO)


@cannot(71, Layer.CLI)
@pytest.mark.parametrize(
    "command", [("dead", "list"), ("tenants", "list"), ("journal",), ("schedules", "list")]
)
def test_a_tenants_credentials_are_not_taken_for_an_operators(
    cli: Inside, acme: str, command: tuple[str, ...]
) -> None:
    of = (acme,) if command == ("journal",) else ()
    error = cli.fails(*command, *of, "--creds", f"{acme}.creds")
    assert f"holds credentials of the tenant {acme}, not of the role control" in error


@cannot(71, Layer.SERVER, without=Layer.CLI)
def test_the_server_refuses_them_where_the_command_line_does_not(
    cli: Inside, acme: str, globex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.cli.connection._holder", lambda _: globex)
    monkeypatch.setattr("tenantry.client.creds_files.tenant_of", lambda _: globex)
    error = cli.fails("request", globex, *ECHO, "--creds", f"{acme}.creds")
    assert f"do not allow publish to tenant.{globex}." in error


@can(71)
def test_a_tenants_own_are_taken(cli: Inside, acme: str) -> None:
    assert cli.ok("request", acme, *ECHO).json["text"] == "x"
    assert cli.ok("request", acme, *ECHO, "--creds", f"{acme}.creds").json["text"] == "x"


# who may read it


@pytest.fixture
def wide() -> Iterator[None]:
    """A shell that takes no care of who may read what it makes."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@cannot(72, Layer.CLI)
def test_new_credentials_are_for_their_owner_alone(cli: Inside, acme: str, wide: None) -> None:
    name = f"{acme}-too"
    cli.ok("tenants", "create", name)
    assert mode(cli.folder / f"{name}.creds") == 0o600
    cli.ok("tenants", "credentials", "issue", acme, "--creds-file", "second.creds")
    assert mode(cli.folder / "second.creds") == 0o600


@cannot(72, Layer.CLI)
def test_the_state_folder_is_for_its_owner_alone(tmp_path: Path, wide: None) -> None:
    StateFolder.open(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / "logs") == 0o700


@cannot(72, Layer.CLI)
def test_every_seed_in_the_operators_home_is_for_its_owner_alone(
    tmp_path: Path, wide: None
) -> None:
    home = OperatorHome.create(tmp_path / "home").path
    secrets = [
        path
        for path in home.rglob("*")
        if path.is_file() and (b"SEED" in path.read_bytes() or path.suffix in {".nk", ".seed"})
    ]
    assert len(secrets) > 10
    assert {mode(path) for path in secrets} == {0o600}
    assert {mode(path.parent) for path in secrets} == {0o700}


@can(72)
def test_its_owner_may_read_it(cli: Inside, acme: str) -> None:
    assert cli.ok("request", acme, *ECHO).json["text"] == "x"
    assert os.access(cli.folder / f"{acme}.creds", os.R_OK)


# what is shown


@cannot(72, Layer.CLI)
def test_no_command_shows_a_context(cli: Inside, acme: str) -> None:
    cli.ok("publish", acme, "notes.remember", '{"text": "x"}')
    cli.ok("publish", acme, "notes.remember", "[]")
    shown = cli.ok("journal", acme).out + cli.ok("journal", acme, "-o", "json").out
    assert "notes.remember" in shown
    assert "Tenant-Context" not in shown
    assert "eyJ" not in shown
