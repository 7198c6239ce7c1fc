"""Whom the tests of admission admit, by which plan and to which actions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tenantry.bus import Bus
from tenantry.context.token import KeyRing, Minter, Trusted
from tenantry.errors import Rejection
from tenantry.messages import Plan, Tenant
from tenantry.wire import trace
from tenantry_workers.router.admission import Admission, Contexts, Forward
from tenantry_workers.router.directory import Directory, Known
from tenantry_workers.router.limits import Limiter, LocalLimiter
from tenantry_workers.router.quotas import Quotas
from tenantry_workers.router.room import JournalRoom
from tenantry_workers.router.volumes import Volumes

MINTER = Minter("k1", b"\1" * 32)
TRACE = trace.Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
INBOX = "_INBOX.acme.x1.7"

STANDARD = Plan(
    name="standard", max_body=1000, retention=3600, timeout=20.0, weight=3, concurrency=4
)
ACTIONS = {
    "orders.place": Known("request", True, 10.0, True),
    "orders.slow": Known("request", True, 90.0, True),
    "orders.idle": Known("request", True, 10.0, False),
    "orders.import": Known("command", True, 60.0, True),
    "orders.later": Known("command", True, 60.0, False),
    "orders.inside": Known("request", False, 10.0, True),
    "orders.hidden": Known("command", False, 10.0, True),
    "orders.placed": Known("event", True, 30.0, True),
}


def tenant(name: str, **fields: Any) -> Tenant:
    return Tenant(id=name, **({"plan": "standard", "created": 0.0, "updated": 0.0} | fields))


def admission_of(directory: Directory, limiter: Limiter | None = None) -> Admission:
    """The router's rules over this directory; what its plans count in NATS is not asked for."""
    bus = Bus(["nats://127.0.0.1:1"])
    contexts, quotas, volumes = Contexts(MINTER), Quotas(bus), Volumes(bus)
    room, limiter = JournalRoom(bus), limiter or LocalLimiter()
    return Admission(
        directory, limiter, contexts, quotas, volumes, room, largest=lambda: bus.max_body
    )


def admit(
    admission: Admission,
    subject: str = "edge.acme.orders.place",
    *,
    reply: str = INBOX,
    size: int = 10,
    **headers: str,
) -> Forward:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return admission.admit(subject, reply, fields, size, TRACE)


def code(admission: Admission, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Rejection) as caught:
        admit(admission, *arguments, **options)
    return caught.value.code


def verified(token: str, name: str = "acme", at: float | None = None) -> Any:
    ring = KeyRing()
    ring.replace({MINTER.kid: Trusted(MINTER.public_key)})
    return ring.verify(token, name, time.time() if at is None else at)
