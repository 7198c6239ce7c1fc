"""Many tenants at once, and one client that may speak for all of them.

The tenants are written as the tenants worker leaves them, without its work: to make their key
pairs is not what is measured. Such a client there is only here.
"""

from __future__ import annotations

import base64
import hashlib
import time

import msgspec

from benchmarks.client import tenant_name
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.messages import Credential, Tenant
from tenantry.operator import OperatorHome, creds, files
from tenantry.operator.claims import UNLIMITED, Permission, User, encode
from tenantry.operator.keys import KeyPair, Kind

_BATCH = 500


class _Anybody(User, frozen=True, tag="user"):
    """A user that the account's own key signs, with permissions of its own."""

    pub: Permission = Permission(allow=("tenant.>",))
    sub: Permission = Permission(allow=("_INBOX.>",))
    subs: int = UNLIMITED
    data: int = UNLIMITED
    payload: int = UNLIMITED


class _Unbound(User, frozen=True, tag="user"):
    """The same, that may do everything."""

    subs: int = UNLIMITED
    data: int = UNLIMITED
    payload: int = UNLIMITED


def unbound(home: OperatorHome) -> str:
    """The text of credentials in MESH for what no role of the mesh does."""
    user = KeyPair.generate(Kind.USER)
    account = KeyPair.from_seed(files.read(home.path / "keys" / "mesh.nk"))
    return creds.render(encode(_Unbound(), subject=user.public_key, signer=account), user)


def anybody(home: OperatorHome) -> str:
    """The text of credentials in EDGE that may speak for every tenant."""
    user = KeyPair.generate(Kind.USER)
    account = KeyPair.from_seed(files.read(home.path / "keys" / "edge.nk"))
    return creds.render(encode(_Anybody(), subject=user.public_key, signer=account), user)


async def populate(bus: Bus, plan: str, first: int, last: int) -> float:
    """Write the tenants with the numbers from `first` to before `last`; seconds that it took."""
    begin = time.perf_counter()
    for start in range(first, last, _BATCH):
        end = min(start + _BATCH, last)
        for number in range(start, end - 1):
            subject, body = _record(number, plan)
            await bus.publish(subject, body)
        await js.store(bus, *_record(end - 1, plan), timeout=30.0)
    state = (await js.api(bus, "STREAM.INFO.KV_tenants"))["state"]
    if state["num_subjects"] < last:
        raise RuntimeError(f"only {state['num_subjects']} tenants of {last} were stored")
    return time.perf_counter() - begin


def _record(number: int, plan: str) -> tuple[str, bytes]:
    name, now = tenant_name(number), round(time.time(), 3)
    digest = hashlib.sha256(name.encode()).digest() + b"\0\0"
    first = Credential(
        public_key=f"U{base64.b32encode(digest).decode()[:55]}",
        name="first",
        issued=now,
        scope=f"plan:{plan}",
    )
    tenant = Tenant(id=name, plan=plan, created=now, updated=now, credentials=(first,))
    return f"$KV.tenants.{name}", msgspec.json.encode(tenant)
