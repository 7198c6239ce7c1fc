"""Plans as documents: read, checked, compared, and put together with a tenant's override.

A document is TOML with a table for each plan, its name the table's:

    [standard]
    rate = 50
    burst = 100
    retention = "7d"

    [[standard.quotas]]
    period = "month"
    amount = 1_000_000
"""

from __future__ import annotations

import calendar
import datetime as dt
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tenantry import durations, subjects
from tenantry.errors import BadMessage, SetupError
from tenantry.messages import Credential, Override, Plan, Quota, Rate, Tenant

T = TypeVar("T", bound=msgspec.Struct)

_PARTS: dict[str, type[msgspec.Struct]] = {"rates": Rate, "quotas": Quota}
_OWN = frozenset({"until", "note"})
"""What an override has and a plan has not."""


class Change(NamedTuple):
    """One field of a plan that differs; None for a plan that is not there."""

    plan: str
    field: str
    before: Any
    after: Any


class Window(NamedTuple):
    """A day or month in UTC; times are seconds since the epoch."""

    name: str
    begin: float
    end: float


def load(path: Path) -> list[Plan]:
    """The plans of a document. Raises :class:`SetupError`, naming what is wrong and where."""
    found = []
    for name, table in _read(path).items():
        where = f"{path}: [{name}]"
        if not isinstance(table, dict):
            raise SetupError(f"{where} is no table", hint="write a plan as [name]")
        if "name" in table:
            raise SetupError(f"{where}: the name is that of the table", hint="leave `name` out")
        plan = _convert({"name": name, **table}, Plan, where)
        try:
            check(plan)
        except BadMessage as error:
            raise SetupError(f"{where}: {error.message}", hint=error.hint) from None
        found.append(plan)
    if not found:
        raise SetupError(f"{path} has no plans", hint="write at least one, as [standard]")
    return found


def load_override(path: Path) -> Override:
    """What a document has in place of a plan's fields, without a table of its own."""
    table = _read(path)
    if own := sorted(_OWN & table.keys()):
        raise SetupError(f"{path}: `{own[0]}` is an option of the command, not of the file")
    override = _convert(table, Override, str(path))
    try:
        check(effective(Plan(name="any", max_body=0), override, 0.0))
    except BadMessage as error:
        raise SetupError(f"{path}: {error.message}", hint=error.hint) from None
    return override


def dump(plan: Plan) -> str:
    """The document of one plan, to save, change and apply."""
    fields = msgspec.to_builtins(plan)
    name = fields.pop("name")
    tables = {key: fields.pop(key) for key in _PARTS}
    lines = [f"[{name}]", *_lines(fields)]
    for key, rows in tables.items():
        for row in rows:
            lines += ["", f"[[{name}.{key}]]", *_lines(row)]
    return "\n".join(lines) + "\n"


def check(plan: Plan) -> None:
    """Raise :class:`BadMessage` for a plan that says what can't be."""
    if not subjects.is_name(plan.name):
        raise BadMessage(f"{plan.name!r} is no name of a plan", hint="letters, digits, _")
    if 0 < plan.journal_bytes < plan.max_body:
        raise BadMessage(
            f"journal_bytes {plan.journal_bytes} is less than max_body {plan.max_body}",
            hint="the largest command would never fit",
        )
    scopes = Counter(rate.scope for rate in plan.rates)
    for rate in plan.rates:
        _check_scope(rate.scope)
        if not rate.scope:
            raise BadMessage("a rate without scope is the plan's own", hint="set `rate`, `burst`")
        if scopes[rate.scope] > 1:
            raise BadMessage(f"two rates of {rate.scope}", hint="leave one")
    names = Counter(quota.name for quota in plan.quotas)
    for quota in plan.quotas:
        if names[quota.name] > 1:
            raise BadMessage(f"two quotas {quota.name}", hint="leave one")
        _check_quota(quota)


def _check_quota(quota: Quota) -> None:
    _check_scope(quota.scope)
    if quota.limit < quota.amount:
        raise BadMessage(f"{quota.name}: hard {quota.limit} is less than the amount")
    if quota.threshold > quota.limit:
        raise BadMessage(f"{quota.name}: soft {quota.threshold} is more than hard")
    if quota.between == "charge" and quota.limit == quota.amount:
        raise BadMessage(
            f"{quota.name}: nothing can be charged between the amount and itself",
            hint="set `hard` to where overage ends",
        )


def effective(plan: Plan, override: Override | None, now: float) -> Plan:
    """What holds for a tenant at `now` (seconds since the epoch)."""
    if override is None or (override.until is not None and override.until <= now):
        return plan
    fields = {
        field: value
        for field in override.__struct_fields__
        if field not in _OWN and (value := getattr(override, field)) is not None
    }
    return msgspec.structs.replace(plan, **fields)


def limits_of(tenant: Tenant, plans: Mapping[str, Plan], now: float) -> Plan | None:
    """What holds for a tenant at `now`; None where its plan does not exist."""
    plan = plans.get(tenant.plan)
    return effective(plan, tenant.override, now) if plan is not None else None


def scope_of(tenant: Tenant, now: float, generation: int) -> str:
    """Whose limits the server is to hold new credentials of a tenant to, see `Credential.scope`."""
    own = tenant.override
    if own is None or own.subscriptions is None or (own.until is not None and own.until <= now):
        return f"plan:{tenant.plan}#{generation}"
    return f"tenant:{tenant.id}"


def subscriptions_of(
    scope: str, tenant: Tenant | None, plans: Mapping[str, Plan], now: float
) -> int:
    """What the server holds each connection of a tenant's credentials to, 0 for any number.

    `tenant` counts for a scope of its own only.
    """
    kind, _, name = scope.partition(":")
    if kind == "tenant":
        plan = limits_of(tenant, plans, now) if tenant is not None else None
    else:
        plan = plans.get(name.partition("#")[0])
    return plan.subscriptions if plan is not None else 0


def outdated(tenant: Tenant, plans: Mapping[str, Plan], now: float) -> list[Credential]:
    """Credentials in force that the server holds to other limits than a new one would be."""
    limit = subscriptions_of(scope_of(tenant, now, 0), tenant, plans, now)
    return [
        each
        for each in tenant.credentials
        if in_force(each, now) and subscriptions_of(each.scope, tenant, plans, now) != limit
    ]


def in_force(credential: Credential, now: float) -> bool:
    """Whether it is neither revoked nor expired."""
    return credential.revoked is None and (credential.expires is None or credential.expires > now)


def window_of(period: str, now: float) -> Window:
    """The day or month of a time."""
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    if period == "day":
        name, days = today.isoformat(), 1
    else:
        name, today = today.isoformat()[:7], today.replace(day=1)
        days = calendar.monthrange(today.year, today.month)[1]
    begin = dt.datetime.combine(today, dt.time(), dt.UTC).timestamp()
    return Window(name, begin, begin + days * 86_400)


def differences(before: Mapping[str, Plan], after: Iterable[Plan]) -> list[Change]:
    """What would change, field by field, in the order of the plans."""
    found = []
    for plan in after:
        old = before.get(plan.name)
        for field in plan.__struct_fields__:
            was, will = getattr(old, field, None), getattr(plan, field)
            if field != "name" and was != will:
                found.append(Change(plan.name, field, was, will))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not TOML: {error}") from None


def _convert(table: dict[str, Any], kind: type[T], where: str) -> T:
    """A table as a record; a field that there is none of is a slip of the pen, and refused."""
    _refuse_unknown(table, kind, where)
    for key, part in _PARTS.items():
        rows = table.get(key, [])
        for number, row in enumerate(rows if isinstance(rows, list) else ()):
            if isinstance(row, dict):
                _refuse_unknown(row, part, f"{where} {key}[{number}]")
    retention = table.get("retention")
    if isinstance(retention, str) and (age := durations.seconds(retention)) is not None:
        table = {**table, "retention": age}
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise SetupError(f"{where}: {error}") from None


def _refuse_unknown(table: Mapping[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    known = set(kind.__struct_fields__)
    if unknown := sorted(table.keys() - known):
        raise SetupError(
            f"{where} has no field {unknown[0]!r}", hint=f"there are {', '.join(sorted(known))}"
        )


def _check_scope(scope: str) -> None:
    if scope and not all(map(subjects.is_name, scope.split("."))):
        raise BadMessage(f"{scope!r} is neither a service nor an action", hint="orders.place")


def _lines(fields: Mapping[str, Any]) -> list[str]:
    return [
        # JSON's numbers, strings, booleans and lists of strings are TOML's too.
        f"{key} = {msgspec.json.encode(value).decode()}"
        for key, value in fields.items()
        if value is not None
    ]
