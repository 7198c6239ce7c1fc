"""Redrive: dead letters go through normal delivery once more, each to the service that gave it up.

The message is published again, in its tenant's name and under an id of its own, and then the letter
is deleted. A mark in the bucket `redrives` is laid before and taken away after: where a redrive was
cut off, the mark says from where on the journal may have the message already, so that a repeat,
however late, does not store it twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec

from tenantry import subjects
from tenantry.bus import Bucket, Bus, api, store
from tenantry.bus.scan import find, scan
from tenantry.context.claims import Claims
from tenantry.context.verify_keys import VerifyKeys
from tenantry.control import Control
from tenantry.errors import (
    BadContext,
    BadMessage,
    BadSubject,
    Conflict,
    JetStreamError,
    NotFound,
    Rejection,
    TenantUnknown,
    TooLarge,
)
from tenantry.letters import UNREADABLE, Letter, Letters
from tenantry.messages import Redrive
from tenantry.streams import JOURNAL
from tenantry.wire import headers as names

_BUCKET = "redrives"
_TENANTS = 8
_FRESH = 60.0
_REFUSED = (BadContext, BadMessage, BadSubject, Conflict, NotFound, TenantUnknown, TooLarge)
"""What is wrong with one letter alone: the next one may do."""

_OWN = {
    each.lower()
    for each in (names.CONTEXT, names.DEADLINE, names.ONLY, names.MESSAGE_ID, names.HOPS)
}
"""Headers that are made anew, or left out: an operator's redrive is no hop of a circle."""

Result = Literal["redriven", "dropped", "gone", "refused", "failed"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter.

    `gone`: somebody else has redriven or dropped it meanwhile. `refused`: it can't be redriven as
    it is. `failed`: the journal or the control plane could not take it now; the later ones of its
    tenant were left alone.
    """

    number: int
    tenant: str
    result: Result
    seq: int = 0
    """Where the journal has the message now."""
    why: str = ""


class Redriver:
    """Redrives letters over a connection with the role `control`.

    `principal` says in whose name a letter goes whose own context does not verify; without it such
    a letter is refused.
    """

    def __init__(self, bus: Bus, *, principal: str | None = None) -> None:
        self._bus = bus
        self._principal = principal
        self._letters = Letters(bus)
        self._control = Control(bus)
        self._marks = Bucket(bus, _BUCKET, Redrive)
        self._keys = VerifyKeys(bus)
        self._ring = self._keys.ring
        self._tokens: dict[tuple[str, str, tuple[str, ...]], tuple[str, float]] = {}
        self._since = 0

    async def __aenter__(self) -> Redriver:
        await self._keys.start()
        state = (await api(self._bus, f"STREAM.INFO.{JOURNAL}"))["state"]
        self._since = int(state["last_seq"]) + 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._keys.stop()

    async def redrive(
        self, letters: Mapping[str, Sequence[int]], told: Callable[[Outcome], None]
    ) -> None:
        """Redrive letters, by tenant; `told` hears of each.

        Those of one tenant go one after another in the order given, tenants side by side.
        """
        gate = asyncio.Semaphore(_TENANTS)

        async def one(tenant: str, numbers: Sequence[int]) -> None:
            async with gate:
                for number in numbers:
                    outcome = await self._one(tenant, number)
                    told(outcome)
                    if outcome.result == "failed":
                        return

        async with asyncio.TaskGroup() as group:
            for tenant, numbers in letters.items():
                group.create_task(one(tenant, numbers))

    def check(self, letter: Letter) -> None:
        """Raise the rejection that a redrive of this letter would meet, as far as can be seen."""
        self._whose(letter)

    # --- one letter ----------------------------------------------------------------------------

    async def _one(self, tenant: str, number: int) -> Outcome:
        outcome = Outcome(number=number, tenant=tenant, result="gone")
        try:
            letter = await self._letter(number)
            seq = await self._publish_once(letter) if letter is not None else 0
        except _REFUSED as error:
            return msgspec.structs.replace(outcome, result="refused", why=str(error))
        except (Rejection, JetStreamError) as error:
            return msgspec.structs.replace(outcome, result="failed", why=str(error))
        return msgspec.structs.replace(outcome, result="redriven", seq=seq) if seq else outcome

    async def _letter(self, number: int) -> Letter | None:
        try:
            letter = await self._letters.get(number)
        except NotFound:
            return None
        return await self._whole(letter) if letter.about.cut else letter

    async def _whole(self, letter: Letter) -> Letter:
        """The letter with what was cut from it; raises :class:`BadMessage` if that is gone."""
        found = await find(self._bus, JOURNAL, letter.about.seq)
        if found is None or subjects.parse_stored(found.subject).tenant != letter.tenant:
            raise BadMessage(
                "the letter lacks its body, and the journal does not hold the message any more",
                hint="drop the letter, and have the message sent again",
            )
        return msgspec.structs.replace(letter, headers=found.headers, body=found.data)

    async def _publish_once(self, letter: Letter) -> int:
        """Publish the message unless the journal has it, delete the letter; returns where it is.

        0 where another redrive was quicker: its mark goes after the letter.
        """
        headers = await self._headers(letter)
        to = subjects.address(letter.tenant, letter.about.action)
        mark = Redrive(id=headers[names.MSG_ID], since=self._since, at=round(time.time(), 3))
        key = f"{letter.tenant}.{letter.number}"
        seq = 0
        try:
            await self._marks.create(key, mark)
        except Conflict:
            former = await self._marks.get(key)
            if former is None:
                return 0
            seq = await self._find(to, former.value)
        if not seq:
            ack = await store(self._bus, subjects.journal(to), letter.body, headers=headers)
            seq = ack.seq
        await self._letters.drop(letter.number, erase=False)  # the journal has it, too
        # Purged, not deleted: a number is never used again, so no marker need tell of it.
        await api(self._bus, f"STREAM.PURGE.KV_{_BUCKET}", {"filter": f"$KV.{_BUCKET}.{key}"})
        return seq

    async def _find(self, to: subjects.Address, mark: Redrive) -> int:
        """Where the journal has what an earlier redrive has published, or 0."""
        subject = subjects.stored_of(to.tenant, to.name)
        async with aclosing(scan(self._bus, JOURNAL, subject, first=mark.since)) as found:
            async for each in found:
                if each.headers.get(names.MSG_ID) == mark.id:
                    return each.seq
        return 0

    async def _headers(self, letter: Letter) -> dict[str, str]:
        """The message's own headers, with a fresh context and what makes it a redriven one."""
        principal, roles = self._whose(letter)
        token = await self._token(letter.tenant, principal, roles)
        own, about = letter.headers, letter.about
        headers = {
            name: value
            for name, value in own.items()
            if name.lower() not in _OWN and not name.lower().startswith("nats-")
        }
        headers[names.CONTEXT] = token
        headers[names.ONLY] = about.service
        headers[names.MESSAGE_ID] = (
            own.get(names.MESSAGE_ID) or own.get(names.MSG_ID) or f"journal:{about.seq}"
        )
        headers[names.MSG_ID] = f"{letter.tenant}.r.{about.service}.{about.seq}.{letter.number}"
        if ttl := names.find(own, names.TTL):
            retention = self._ring.verify(token, letter.tenant, time.time()).retention
            headers[names.TTL] = f"{retention}s" if retention else ttl
        return headers

    # --- in whose name -------------------------------------------------------------------------

    def _whose(self, letter: Letter) -> tuple[str, tuple[str, ...]]:
        """Principal and roles: the message's own, or those that were asked for."""
        if letter.about.reason == UNREADABLE:
            raise BadMessage(f"this is no dead letter: {letter.about.detail}")
        try:
            claims: Claims = self._ring.verify(
                letter.headers.get(names.CONTEXT), letter.tenant, letter.about.stored
            )
        except BadContext as error:
            if self._principal is None:
                raise BadContext(
                    error.message, hint="give --principal NAME to say in whose name it goes"
                ) from None
            return self._principal, ()
        return claims.principal, claims.roles

    async def _token(self, tenant: str, principal: str, roles: tuple[str, ...]) -> str:
        key = tenant, principal, roles
        now = time.time()
        kept = self._tokens.get(key)
        if kept is None or kept[1] < now:
            token = await self._control.issue_context(tenant, principal=principal, roles=roles)
            kept = self._tokens[key] = token, now + _FRESH
        return kept[0]
