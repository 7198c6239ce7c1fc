"""`tenantry keys …`: the life of the keys that the mesh trusts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tenantry.bus import Bus
from tenantry.cli import confirm, connection, key_rows, loop, moment, output
from tenantry.cli.connection import Connection
from tenantry.cli.options import Output
from tenantry.cli.usage import UsageError, examples
from tenantry.errors import Conflict, ConnectionFailed, NotFound, Unavailable
from tenantry.operator import OperatorHome, generations, plant
from tenantry.rotation import Accounts, Connections, Contexts, Voided, in_force, voided_by

Kind = Literal["context", "tenants", "router", "service", "control", "sys"]
Rotated = Literal["context", "tenants", "router", "service", "control", "sys", "operator"]
_IN_FORCE = 15.0
_SHOWN = 10

app = App(
    name="keys",
    help="Keys: list those that the mesh trusts, have another take over, take one away.",
    help_epilogue=examples(
        "tenantry keys list",
        "tenantry keys rotate context              # no message fails meanwhile",
        "tenantry keys rotate router --overlap 60  # the old key goes, once unused",
        "tenantry keys revoke context 5f0c93ab --since 2h",
        "tenantry keys revoke tenants q7x2m4ka     # asks: it voids credentials",
    ),
)

Which = Annotated[Kind, Parameter(help="context, tenants, router, service, control or sys")]


@app.command(
    name="list",
    help_epilogue=examples("tenantry keys list", "tenantry keys list -o json | jq '.[].id'"),
)
def list_(*, form: Output = "table", at: Connection = connection.DEFAULT) -> None:
    """List the keys: kind, id, when made, state, and who uses them now.

    A key is `current` (it signs), `previous` (what it signed is still good),
    `next` (made known, not used yet), `retired` (a context key that only
    verifies what it signed) or `revoked`.
    """
    home = _home(at)
    rows = loop.run(_list(at, home))
    if form == "json":
        output.json(rows)
        return
    output.table(
        ("kind", "id", "created", "state", "used by"),
        [
            (row.kind, row.id, output.moment(row.created), row.state, key_rows.users(row))
            for row in rows
        ],
    )


@app.command(
    help_epilogue=examples(
        "tenantry keys rotate context",
        "tenantry keys rotate tenants               # what was issued stays good",
        "tenantry keys rotate service --overlap 60  # the old key goes, once unused",
    )
)
def rotate(
    kind: Annotated[Rotated, Parameter(help="what the key signs, or whose credentials")],
    /,
    *,
    overlap: Annotated[
        float | None,
        Parameter(help="of a role: seconds to wait until nobody uses the old key; then revoke it"),
    ] = None,
    at: Connection = connection.DEFAULT,
) -> None:
    """Have a new key sign from now on. No message fails, and nothing restarts.

    For `context` every worker knows the new key before a router signs with
    it; then the old one is retired. For `tenants` and the roles what the
    old key signed stays good until it is revoked. New credentials of a role
    are written to the operator's directory; processes that run with these
    files go over by themselves within seconds, those with copies elsewhere
    when they are given new ones (`tenantry nats creds`).

    `operator` is for a stolen operator's signing key: it needs
    keys/operator.nk, and nats-server has to be restarted at once.
    """
    if overlap is not None and kind in {"context", "tenants", "operator"}:
        raise UsageError("--overlap is for the keys of roles")
    if overlap is not None and overlap < 0:
        raise UsageError("--overlap is at least 0 seconds")
    home = _current(at)
    with generations.locked(home):
        if kind == "context":
            loop.run(_rotate_context(at, home))
        elif kind == "tenants":
            loop.run(_rotate_tenants(at, home))
        elif kind == "operator":
            loop.run(Accounts(home, None).apply(generations.next_operator_key(home)))
            output.line("next: restart nats-server, on each node with the new operator.conf")
        else:
            loop.run(_rotate_role(at, home, kind, overlap))


@app.command(
    help_epilogue=examples(
        "tenantry keys revoke context 5f0c93ab             # nothing by it counts",
        "tenantry keys revoke context 5f0c93ab --since 2h  # older messages still count",
        "tenantry keys revoke tenants q7x2m4ka --yes",
        "tenantry keys revoke router q7x2m4ka --force      # cut off who still uses it",
    )
)
def revoke(
    kind: Which,
    key: Annotated[str, Parameter(help="its id, as `tenantry keys list` shows it")],
    /,
    *,
    since: Annotated[
        str | None,
        Parameter(help="of a context key: when it was stolen; spares what was stored before"),
    ] = None,
    force: Annotated[
        bool, Parameter(negative="", help="of a role: also while connections use it")
    ] = False,
    yes: Annotated[bool, Parameter(negative="", help="do not ask")] = False,
    at: Connection = connection.DEFAULT,
) -> None:
    """Take a key away, on open connections too; what it signed is of no use any more.

    Without --since a revoked context key also voids what waits in the
    journal: it becomes dead letters, to be redriven with --principal.
    """
    if since is not None and kind != "context":
        raise UsageError("--since is for context keys")
    when = moment.parse_time(since) if since is not None else None
    if when is not None and when > time.time():
        raise UsageError(f"--since {since} lies in the future", hint="say when it was stolen")
    home = _current(at)
    with generations.locked(home):
        if kind == "context":
            loop.run(_revoke_context(at, home, key, when))
            return
        chosen = _signing_key(home, kind, key)
        if kind == "tenants":
            if not yes:
                _confirm_void(loop.run(_voided(at, home, chosen)), chosen)
            loop.run(_revoke_tenants(at, home, chosen))
        else:
            loop.run(_revoke_role(at, home, kind, chosen, force=force))


@app.command(
    help_epilogue=examples("tenantry keys upgrade", "tenantry keys upgrade --home /etc/tenantry")
)
def upgrade(*, at: Connection = connection.DEFAULT) -> None:
    """Bring an older version's operator directory to this one: all or nothing.

    Writes the permissions of this version into the accounts, pushes them
    where the server runs, certifies the context keys and issues the roles'
    credentials anew. Then restart the workers, with the new files.
    """
    home = _home(at)
    with generations.locked(home):
        if not generations.outdated(home):
            output.line(f"{home.path} is as this version has it")
            return
        loop.run(_upgrade(at, home))


# --- context keys ------------------------------------------------------------------------------


async def _rotate_context(at: Connection, home: OperatorHome) -> None:
    async with await at.connect("control") as bus:
        await Contexts(home, bus, tell=output.line).rotate()


async def _revoke_context(
    at: Connection, home: OperatorHome, kid: str, since: float | None
) -> None:
    async with await at.connect("control") as bus:
        await Contexts(home, bus, tell=output.line).revoke(kid, since=since)


# --- the tenants' signing key ------------------------------------------------------------------


async def _rotate_tenants(at: Connection, home: OperatorHome) -> None:
    async with await at.connect("control") as bus:
        await Accounts(home, None).apply(generations.next_key(home, plant.TENANT_KEY))
        await _settle(bus, home)
    output.line(f"credentials of tenants are signed by {_newest(home, plant.TENANT_KEY).id} now")


async def _voided(at: Connection, home: OperatorHome, key: plant.SigningKey) -> Sequence[Voided]:
    async with await at.connect("control") as bus:
        return (await voided_by(bus, home)).get(key.key, [])


def _confirm_void(voided: Sequence[Voided], key: plant.SigningKey) -> None:
    if not voided:
        return
    for each in voided[:_SHOWN]:
        output.note(f"  {each.tenant}: {each.credentials}")
    if len(voided) > _SHOWN:
        output.note(f"  and {len(voided) - _SHOWN} more tenants")
    count = sum(each.credentials for each in voided)
    confirm.yes(f"Void {count} credentials of {len(voided)} tenants, signed by {key.id}")


async def _revoke_tenants(at: Connection, home: OperatorHome, key: plant.SigningKey) -> None:
    async with await at.connect("control") as bus:
        draft = generations.without_key(home, plant.TENANT_KEY, key)
        await Accounts(home, None).apply(draft)
        await _settle(bus, home)
    output.line(f"revoked {key.id}")


async def _settle(bus: Bus, home: OperatorHome) -> None:
    if late := await in_force(bus, home, within=_IN_FORCE):
        names = ", ".join(each.name for each in late)
        raise Unavailable(
            f"{names} did not take it over: is its operator's directory another copy?",
            hint="bring this one there; the change is written and will be in force then",
        )


# --- the keys of roles -------------------------------------------------------------------------


async def _rotate_role(
    at: Connection, home: OperatorHome, role: str, overlap: float | None
) -> None:
    label = generations.label_of(role)
    old = generations.live_but_newest(home, label)
    former = _newest(home, label)
    async with await _system(at, home) as system:
        for path in await Accounts(home, system).apply(generations.next_key(home, label)):
            output.line(f"made {path}")
        output.line(f"credentials of the role {role} are signed by {_newest(home, label).id} now")
    if overlap is None:
        output.line(f"next: tenantry keys revoke {role} {former.id}")
        return
    for key in (*old, former):
        await _revoke_role(at, home, role, key, force=False, within=overlap)


async def _revoke_role(
    at: Connection,
    home: OperatorHome,
    role: str,
    key: plant.SigningKey,
    *,
    force: bool,
    within: float = 0.0,
) -> None:
    label = generations.label_of(role)
    draft = generations.without_key(home, label, key)
    account = home.account(plant.place_of(label)[0]).sub
    async with await _system(at, home) as system:
        if not force:
            left = await Connections(system).leave(account, key.key, within=within)
            if left:
                raise Conflict(
                    f"{len(left)} connections still use {key.id}: {', '.join(left[:_SHOWN])}",
                    hint="give them new credentials, or --force cuts them off",
                )
        await Accounts(home, system).apply(draft)
    output.line(f"revoked {key.id}")


# --- all of them -------------------------------------------------------------------------------


async def _list(at: Connection, home: OperatorHome) -> list[key_rows.Row]:
    async with AsyncExitStack() as stack:
        try:
            bus = await stack.enter_async_context(await at.connect("control"))
            system = await stack.enter_async_context(await _system(at, home))
        except ConnectionFailed as error:
            output.note(f"who uses them is not known: {error.message}")
            return await key_rows.rows(home, None, None)
        return await key_rows.rows(home, bus, system)


async def _upgrade(at: Connection, home: OperatorHome) -> None:
    draft = generations.upgraded(home)
    async with AsyncExitStack() as stack:
        try:
            system = await stack.enter_async_context(await _system(at, home))
        except ConnectionFailed as error:
            system = None
            output.note(f"in the files only, in force when nats-server starts: {error.message}")
        written = await Accounts(home, system).apply(draft)
    output.line(f"upgraded {home.path}")
    for path in written:
        output.line(f"  made {path}")
    if written:
        output.line("next: restart the workers with these; issue others with `tenantry nats creds`")


async def _system(at: Connection, home: OperatorHome) -> Bus:
    try:
        return await Bus.connect(
            at.server(), creds=home.creds_path("sys"), name="tenantry-cli", patience=5.0
        )
    except ConnectionFailed as error:
        raise at.explain(error) from None


def _home(at: Connection) -> OperatorHome:
    return OperatorHome.load(at.operator_home())


def _current(at: Connection) -> OperatorHome:
    return generations.require_current(_home(at))


def _newest(home: OperatorHome, label: str) -> plant.SigningKey:
    return home.live_keys(label)[-1]


def _signing_key(home: OperatorHome, kind: str, key: str) -> plant.SigningKey:
    keys = home.signing_keys(generations.label_of(kind))
    for each in keys:
        if key.lower() in {each.id, each.key.lower()}:
            if each.revoked is not None:
                raise Conflict(f"the key {each.id} is revoked already")
            return each
    known = ", ".join(each.id for each in keys)
    raise NotFound(f"no key {key!r} of {kind}", hint=f"there are {known}")
