"""Who can reach what while tenants and credentials come, change and go: a model beside a real mesh.

After each step each credential that there ever was is tried: its own action on the connection that
was opened when it was issued, another tenant's subject, another tenant's inbox, a new login. What
a tenant's state may hold is known exactly, so a message that crossed once is found at every later
step. TENANTRY_MACHINE=EXAMPLESxSTEPS runs longer than the suite does, as in 50x60.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import nats
import nats.errors
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nats.aio.client import Client as NatsClient

from tenantry.errors import Conflict, Rejection
from tenantry.operator import creds as creds_files
from tenantry.operator.keys import KeyPair, Kind
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, eventually

T = TypeVar("T")
State = Literal["active", "suspended", "deleted"]

PLANS = ("business", "premium")
MOST = 4
"""Tenants that are not deleted, and credentials of each."""
PATIENCE = 20.0
LIFE = 3.0
"""How long credentials with an end last, seconds; nats-server counts whole ones."""

_names = itertools.count()


@dataclass
class Key:
    """One credential, and the connection that was opened with it."""

    tenant: str
    path: Path
    public: str
    client: NatsClient
    errors: list[str]
    revoked: bool = False
    expires: float | None = None

    @property
    def good(self) -> bool:
        return not self.revoked and (self.expires is None or time.time() < self.expires)

    @property
    def about_to_end(self) -> bool:
        """Whether its end may come in the middle of a check."""
        return self.expires is not None and abs(self.expires - time.time()) < 1.2


@dataclass
class Record:
    """What the model knows of a tenant."""

    id: str
    secret: str
    state: State = "active"
    plan: str = PLANS[0]
    keys: list[Key] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Lifecycle(RuleBasedStateMachine):
    """The model, and the mesh under it."""

    tenants = Bundle("tenants")
    keys = Bundle("keys")

    def __init__(self, mesh: Mesh, loop: asyncio.AbstractEventLoop, tried: list[int]) -> None:
        super().__init__()
        self.mesh = mesh
        self.loop = loop
        self.tried = tried
        self.records: dict[str, Record] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self._close())

    async def _close(self) -> None:
        for record in self.records.values():
            for key in record.keys:
                await close(key.client)

    # --- what operators do ---------------------------------------------------------------------

    @initialize(target=tenants)
    def begin(self) -> Any:
        """Two, so that there is always another one; and a credential that is over already."""
        first, second = self.run(self._create()), self.run(self._create())
        self.records[first].keys[0].revoked = True
        public = self.records[first].keys[0].public
        self.run(self.mesh.control("revoke_credentials", id=first, public_key=public))
        return multiple(first, second)

    @precondition(lambda self: self.alive() < MOST)
    @rule(target=tenants)
    def create(self) -> str:
        return self.run(self._create())

    @rule(name=tenants)
    def create_again(self, name: str) -> None:
        """The id of a tenant that is, or was, names no second one."""
        with pytest.raises(Conflict):
            self.run(self.mesh.control("create", id=name, plan=PLANS[0]))

    @rule(name=tenants)
    def suspend(self, name: str) -> None:
        self.change(name, "suspend", "suspended")

    @rule(name=tenants)
    def resume(self, name: str) -> None:
        self.change(name, "resume", "active")

    @precondition(lambda self: self.alive() > 1)
    @rule(name=tenants)
    def delete(self, name: str) -> None:
        self.change(name, "delete", "deleted")
        for key in self.records[name].keys:
            key.revoked = True

    @rule(name=tenants, plan=st.sampled_from(PLANS))
    def set_plan(self, name: str, plan: str) -> None:
        if self.ask(name, "set_plan", plan=plan):
            self.records[name].plan = plan

    @rule(target=keys, name=tenants, ends=st.booleans())
    def issue(self, name: str, ends: bool) -> Any:
        record = self.records[name]
        if sum(key.good for key in record.keys) >= MOST:
            return multiple()
        key = KeyPair.generate(Kind.USER)
        expires = float(int(time.time()) + LIFE + 1) if ends else None
        try:
            answer = self.run(
                self.mesh.control(
                    "issue_credentials", id=name, public_key=key.public_key, expires=expires
                )
            )
        except Conflict:
            assert record.state == "deleted"
            return multiple()
        assert record.state != "deleted"
        self.run(self._take(record, key, answer["jwt"], expires))
        return (name, key.public_key)

    @rule(which=keys)
    def revoke(self, which: tuple[str, str]) -> None:
        name, public = which
        with_end = next(key for key in self.records[name].keys if key.public == public)
        try:
            self.run(self.mesh.control("revoke_credentials", id=name, public_key=public))
        except Rejection:
            # It is over, and forgotten; or its tenant is deleted.
            assert not with_end.good
        with_end.revoked = True

    @precondition(lambda self: any(k.expires and k.good for k in self.all_keys()))
    @rule()
    def wait_for_an_end(self) -> None:
        ends = max(key.expires for key in self.all_keys() if key.expires and key.good)
        self.run(asyncio.sleep(max(0.0, ends - time.time()) + 1.3))

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def everybody_reaches_their_own_and_nobody_else(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        everybody = list(self.records.values())
        for record in everybody:
            other = next((each for each in everybody if each is not record), None)
            for key in record.keys:
                if key.about_to_end:
                    continue
                if key.good:
                    await self._own(record, key)
                    if other is not None:
                        await self._across(key, other)
                else:
                    await self._is_out(key)

    async def _own(self, record: Record, key: Key) -> None:
        """Its own action: what it kept and nothing else, or why not."""
        expected = {"active": "", "suspended": "tenant_suspended"}[record.state]

        async def settled() -> bool:
            try:
                answer = await key.client.request(
                    f"tenant.{record.id}.notes.texts", b"{}", timeout=0.3 if expected else PATIENCE
                )
            except nats.errors.TimeoutError:
                # Who is refused all the time is not even answered.
                return bool(expected)
            found = msgspec.json.decode(answer.data)
            if expected or "code" in found:
                return bool(found.get("code") == expected)
            assert set(found["texts"]) <= set(record.texts)
            return list(found["texts"]) == record.texts

        await eventually(settled)
        self.tried[0] += 1

    async def _across(self, key: Key, other: Record) -> None:
        """Another's subject and inbox: the server permits neither."""
        key.errors.clear()
        body = msgspec.json.encode({"text": f"from {key.tenant}"})
        await key.client.publish(f"tenant.{other.id}.notes.remember", body)
        inbox = await key.client.subscribe(f"_INBOX.{other.id}.>")

        async def refused() -> bool:
            await key.client.flush()
            return len(key.errors) == 2

        await eventually(refused)
        assert all("permissions violation" in error for error in key.errors)
        await inbox.unsubscribe()
        self.tried[1] += 2

    async def _is_out(self, key: Key) -> None:
        """The old connection is cut off, and there is no new one."""

        async def cut_off() -> bool:
            return key.client.is_closed

        await eventually(cut_off)
        client = NatsClient()
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await client.connect(
                self.mesh.url, user_credentials=str(key.path), allow_reconnect=False
            )
        await close(client)
        self.tried[2] += 1

    # --- inside --------------------------------------------------------------------------------

    def alive(self) -> int:
        return sum(record.state != "deleted" for record in self.records.values())

    def all_keys(self) -> list[Key]:
        return [key for record in self.records.values() for key in record.keys]

    def change(self, name: str, action: str, state: State) -> None:
        if self.ask(name, action):
            self.records[name].state = state

    def ask(self, name: str, action: str, **fields: Any) -> bool:
        """Ask the control plane; False where it refuses, as it must for a deleted tenant."""
        deleted = self.records[name].state == "deleted"
        try:
            self.run(self.mesh.control(action, id=name, **fields))
        except Rejection:
            assert deleted
            return False
        return not deleted

    async def _create(self) -> str:
        name, key = f"life{os.getpid()}-{next(_names)}", KeyPair.generate(Kind.USER)
        answer = await self.mesh.control(
            "create", id=name, plan=PLANS[0], public_key=key.public_key
        )
        record = self.records[name] = Record(name, f"secret of {name}")
        await self._take(record, key, answer["jwt"], None)
        subject = f"tenant.{name}.notes.remember"
        body = msgspec.json.encode({"text": record.secret})

        async def stored() -> bool:
            answer = await record.keys[0].client.request(subject, body, timeout=PATIENCE)
            return "seq" in msgspec.json.decode(answer.data)

        await eventually(stored)  # once the router knows the tenant
        record.texts.append(record.secret)
        return name

    async def _take(self, record: Record, key: KeyPair, jwt: str, expires: float | None) -> None:
        path = self.mesh.folder / f"{key.public_key}.creds"
        path.write_text(creds_files.render(jwt, key))
        errors: list[str] = []

        async def failed(error: Exception) -> None:
            errors.append(str(error))

        client = await nats.connect(
            self.mesh.url,
            user_credentials=str(path),
            inbox_prefix=f"_INBOX.{record.id}",
            allow_reconnect=False,
            error_cb=failed,
        )
        record.keys.append(Key(record.id, path, key.public_key, client, errors, expires=expires))


async def close(client: NatsClient) -> None:
    await client.close()
    if client._transport is not None:  # after a refused login nats-py leaves it open
        client._transport.close()
    await asyncio.sleep(0)


def bounds() -> dict[str, int]:
    examples, _, steps = os.environ.get("TENANTRY_MACHINE", "3x16").partition("x")
    return {"max_examples": int(examples), "stateful_step_count": int(steps)}


@cannot(11, Layer.CONTROL)
@cannot(23, Layer.SERVER)
@can(11)
@can(23)
def test_nobody_ever_reaches_another_tenant(mesh: Mesh) -> None:
    loop, tried = asyncio.new_event_loop(), [0, 0, 0]
    bounded = settings(
        **bounds(),
        deadline=None,
        database=None,
        # Real servers: a failure is told as it was found, trying to make it smaller takes long.
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(lambda: Lifecycle(mesh, loop, tried), settings=bounded)
    finally:
        loop.close()
    print(f"own: {tried[0]}, across: {tried[1]}, with credentials that are over: {tried[2]}")
    assert min(tried) > 0
