"""The keys of a mesh as rows of `tenantry keys list`."""

from __future__ import annotations

import msgspec

from tenantry.bus import Bus
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome, plant
from tenantry.operator.generations import label_of
from tenantry.rotation import Connections, Instances, voided_by

_ROLES = ("router", "service", "control", "sys")
_SHOWN = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One key."""

    kind: str
    id: str
    created: float
    state: str
    public_key: str
    used_by: tuple[str, ...] | None = None
    """Connections or instances; None where it is not known."""
    credentials: int | None = None
    """Of the tenants' keys: how many valid ones it has signed."""
    revoked: float | None = None


def users(row: Row) -> str:
    """Who uses a key, for people."""
    if row.credentials is not None:
        return f"{row.credentials} credentials"
    if row.used_by is None:
        return "?" if row.kind != "context" else ""
    names = sorted({name.partition("/")[0] for name in row.used_by})
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(row.used_by)}: {shown}" if row.used_by else "nobody"


async def rows(home: OperatorHome, bus: Bus | None, system: Bus | None) -> list[Row]:
    """All keys; without connections nobody knows who uses them."""
    return [
        *await _context_rows(home, bus),
        *await _tenant_rows(home, bus),
        *await _role_rows(home, system),
    ]


async def _context_rows(home: OperatorHome, bus: Bus | None) -> list[Row]:
    keys = home.verify_keys() if home.context_root else []
    instances = await Instances(bus).all() if bus is not None else None
    newest = max(
        (key for key in keys if _signs(key)), key=lambda key: key.active or 0, default=None
    )
    return [
        Row(
            kind="context",
            id=key.kid,
            created=key.created,
            state=_state(key, newest),
            public_key=key.key,
            used_by=None
            if instances is None
            else tuple(each.name for each in instances if each.about.get("context_key") == key.kid),
            revoked=key.revoked,
        )
        for key in keys
    ]


def _signs(key: VerifyKey) -> bool:
    return key.active is not None and key.retired is None and key.revoked is None


def _state(key: VerifyKey, newest: VerifyKey | None) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.retired is not None:
        return "retired"
    if key.active is None:
        return "next"
    return "current" if newest is not None and key.kid == newest.kid else "previous"


async def _tenant_rows(home: OperatorHome, bus: Bus | None) -> list[Row]:
    voided = await voided_by(bus, home) if bus is not None else None
    return [
        msgspec.structs.replace(
            row,
            credentials=None
            if voided is None
            else sum(
                each.credentials
                for each in voided.get(row.public_key, [])
                if row.state != "revoked"
            ),
        )
        for row in _signing_rows(home, "tenants")
    ]


async def _role_rows(home: OperatorHome, system: Bus | None) -> list[Row]:
    found = []
    for role in _ROLES:
        account = home.account(plant.place_of(label_of(role))[0]).sub
        connected = await Connections(system).of(account) if system is not None else None
        found += [
            msgspec.structs.replace(
                row,
                used_by=None
                if connected is None
                else tuple(each.name for each in connected if each.issuer == row.public_key),
            )
            for row in _signing_rows(home, role)
        ]
    return found


def _signing_rows(home: OperatorHome, kind: str) -> list[Row]:
    label = label_of(kind)
    newest = home.live_keys(label)[-1]

    def state(key: plant.SigningKey) -> str:
        if key.revoked is not None:
            return "revoked"
        return "current" if key == newest else "previous"

    return [
        Row(
            kind=kind,
            id=key.id,
            created=key.created,
            state=state(key),
            public_key=key.key,
            revoked=key.revoked,
        )
        for key in home.signing_keys(label)
    ]
