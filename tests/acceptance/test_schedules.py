"""`tenantry schedules`: what waits for its time, and what an operator does about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.bus import jetstream as js
from tests.acceptance.cli import Cli, Inside, soon

REMINDER = """
from msgspec import Struct
from tenantry import Context, Service

class Remind(Struct):
    text: str
    after: float = 3600.0

service = Service("reminder")

@service.request("later", public=True)
async def later(ctx: Context, ask: Remind) -> str:
    return ctx.send("reminder.note", ask, after=ask.after)

@service.command("note")
async def note(ctx: Context, ask: Remind) -> None:
    await ctx.state.put("last", ask)

@service.request("last", public=True)
async def last(ctx: Context) -> str:
    entry = await ctx.state.get("last", Remind)
    return entry.value.text if entry else ""
"""


@pytest.fixture(scope="module")
def remote(mesh: Cli) -> Iterator[Cli]:
    """The mesh, with a service that sends commands later, and a second tenant."""
    mesh.write("reminder.py", REMINDER)
    mesh.ok("tenants", "create", "postponing")
    with mesh.foreground("run", "reminder:service") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        yield mesh


@pytest.fixture(autouse=True)
def empty(remote: Cli) -> Iterator[None]:
    yield
    for tenant in ("acme", "postponing"):
        remote.ok("schedules", "cancel", tenant, "--all")


def later(cli: Cli, tenant: str, text: str = "x", after: float = 3600.0) -> str:
    body = json.dumps({"text": text, "after": after})
    return str(cli.ok("request", tenant, "reminder.later", body).json)


def waiting(cli: Cli, *arguments: str) -> list[str]:
    return [each["id"] for each in cli.ok("schedules", "list", *arguments, "-o", "json").json]


def test_none_is_an_empty_list(remote: Cli) -> None:
    assert waiting(remote) == []


def test_the_next_one_is_first(remote: Cli) -> None:
    second, first = later(remote, "acme", after=2000), later(remote, "postponing", after=1000)
    assert waiting(remote) == [first, second]


def test_the_table_tells_what_is_sent_when(remote: Cli) -> None:
    name = later(remote, "acme")
    head, row = remote.ok("schedules", "list").out.splitlines()
    assert head.split() == ["DUE", "TENANT", "SERVICE", "ID", "COMMAND", "BYTES"]
    assert row.split()[1:] == ["acme", "reminder", name, "reminder.note", "27"]


def test_those_of_one_tenant(remote: Cli) -> None:
    own, _ = later(remote, "acme"), later(remote, "postponing")
    assert waiting(remote, "acme") == [own]


def test_those_of_one_service(remote: Cli) -> None:
    own = later(remote, "acme")
    assert waiting(remote, "--service", "reminder") == [own]
    assert waiting(remote, "acme", "--service", "orders") == []


def test_one_is_shown_with_its_body(remote: Cli) -> None:
    name = later(remote, "acme", "hello")
    assert '"text":"hello"' in remote.ok("schedules", "show", "acme", name).out
    shown = remote.ok("schedules", "show", "acme", name, "-o", "json").json
    assert (shown["id"], shown["command"]) == (name, "reminder.note")
    assert shown["body"] == {"text": "hello", "after": 3600.0}


def test_another_tenant_has_none_of_this_id(remote: Cli) -> None:
    name = later(remote, "acme")
    for command in ("show", "cancel"):
        error = remote.fails("schedules", command, "postponing", name)
        assert error.startswith(f"not_found: tenant postponing has no schedule {name} ")
    assert waiting(remote) == [name]


def test_a_cancelled_one_is_gone_and_never_sent(remote: Cli) -> None:
    first = later(remote, "acme", "first", after=3.0)
    kept = later(remote, "acme", "far")
    assert remote.ok("schedules", "cancel", "acme", first).out == f"cancelled {first}\n"
    later(remote, "acme", "second", after=3.0)
    soon(lambda: remote.ok("request", "acme", "reminder.last").json == "second")
    assert waiting(remote) == [kept]
    sent = remote.ok("services", "reminder", "-o", "json").json
    (note,) = [each for each in sent[0]["actions"] if each["name"] == "note"]
    assert note["handled"] == 1


def test_several_are_cancelled_and_the_missing_one_is_told(remote: Cli) -> None:
    names = [later(remote, "acme") for _ in range(2)]
    done = remote("schedules", "cancel", "acme", names[0], "0" * 32, names[1])
    assert (done.code, done.out.split()) == (1, ["cancelled", names[0], "cancelled", names[1]])
    assert done.error.startswith(f"not_found: tenant acme has no schedule {'0' * 32} ")


def test_all_of_a_tenant_are_cancelled(remote: Cli) -> None:
    later(remote, "acme")
    later(remote, "acme")
    other = later(remote, "postponing")
    assert remote.ok("schedules", "cancel", "acme", "--all").out == "cancelled 2 of acme\n"
    assert waiting(remote) == [other]


@pytest.mark.parametrize("ids", [(), ("0" * 32, "--all")])
def test_either_ids_or_all(remote: Cli, ids: tuple[str, ...]) -> None:
    error = remote.misused("schedules", "cancel", "acme", *ids)
    assert error.startswith("usage: give the ids of schedules, or --all")


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_what_is_no_id_is_told(remote: Cli, command: str) -> None:
    error = remote.fails("schedules", command, "acme", "*")
    assert error.startswith("bad_subject: '*' is no schedule's id (32 hex digits;")


@pytest.mark.parametrize(
    "command", [("list", "A!"), ("show", "A!", "x"), ("cancel", "A!", "--all")]
)
def test_what_is_no_tenant_is_told(remote: Cli, command: tuple[str, ...]) -> None:
    assert remote.fails("schedules", *command).startswith("bad_subject: 'A!' is not a tenant id")


def test_a_service_that_can_not_be_one_is_told(remote: Cli) -> None:
    error = remote.fails("schedules", "list", "--service", "*")
    assert error.startswith("bad_subject: '*' is not a valid name of a service")


def test_a_service_that_nothing_knows_is_told(remote: Cli) -> None:
    error = remote.fails("schedules", "list", "--service", "nope")
    assert error == "not_found: no service nope is known (`tenantry services` lists them)"


def test_a_tenant_that_never_was_has_none_to_cancel(remote: Cli) -> None:
    assert "no tenant 'nobody'" in remote.fails("schedules", "cancel", "nobody", "--all")
    assert remote.ok("schedules", "cancel", "acme", "--all").out == "cancelled 0 of acme\n"


def test_a_body_that_is_no_json_is_shown_all_the_same(remote: Cli) -> None:
    async def lay_down() -> None:
        async with await remote.control() as bus:
            fields = {"Tenant-Command": "reminder.note", "Tenant-Due": "4000000000000"}
            await js.store(bus, f"schedule.acme.reminder.{'0' * 32}", b"\xff{", headers=fields)

    asyncio.run(lay_down())
    assert "body      \ufffd{" in remote.ok("schedules", "show", "acme", "0" * 32).out
    shown = remote.ok("schedules", "show", "acme", "0" * 32, "-o", "json").json
    assert (shown["body"], shown["size"], shown["due"]) == (None, 2, 4_000_000_000.0)


def test_a_mesh_that_keeps_none_yet_is_told(cli: Cli, tmp_path: Path) -> None:
    async def take_away() -> None:
        async with await cli.control() as bus:
            await js.api(bus, "STREAM.DELETE.SCHEDULES")

    with cli.up():
        asyncio.run(take_away())
        error = Inside(tmp_path).fails("schedules", "list")
    assert error.startswith("setup: this mesh keeps no schedules yet (start its tenants worker")


def test_a_tenant_that_does_not_exist_has_no_schedules(mesh: Cli) -> None:
    assert mesh.fails("schedules", "list", "nobody").startswith("not_found: no tenant 'nobody'")
