"""Dead letters, as an operator sees them: what services gave up on, in the stream `DEAD`.

A letter's number is its sequence in `DEAD`; it never changes and is not used again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from tenantry import subjects
from tenantry.bus import Bus, api
from tenantry.bus.jetstream import StoredMessage
from tenantry.bus.scan import find, scan
from tenantry.errors import BadMessage, BadSubject, JetStreamError, NotFound
from tenantry.messages import DeadLetter
from tenantry.streams import DEAD
from tenantry.wire import letter as wire

UNREADABLE = "unreadable"
"""The reason that stands at what lies in `DEAD` and is no dead letter."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter: whose, why, and the message as it was."""

    number: int
    tenant: str
    about: DeadLetter
    headers: dict[str, str]
    body: bytes


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant: those to which all that is given applies."""

    tenant: str | None = None
    service: str | None = None
    """Who gave up."""
    action: str | None = None
    """`<service>.<action>` of the message."""
    reason: str | None = None
    since: float | None = None
    """Given up then or later, seconds since the epoch."""
    until: float | None = None
    """Given up before."""

    def check(self) -> None:
        """Raise :class:`~tenantry.errors.BadSubject` where a name can't be one."""
        if self.tenant is not None:
            subjects.check_tenant(self.tenant)
        if self.service is not None:
            subjects.check_name(self.service, "service")
        if self.action is not None:
            subjects.split_action(self.action)

    def takes(self, letter: Letter) -> bool:
        """Whether `letter` is meant."""
        about = letter.about
        return (
            self.tenant in (None, letter.tenant)
            and self.service in (None, about.service)
            and self.action in (None, about.action)
            and self.reason in (None, about.reason)
            and (self.since is None or about.at >= self.since)
            and (self.until is None or about.at < self.until)
        )


class Letters:
    """The dead letters of a mesh, over a connection with the role `control`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def select(self, which: Selection) -> AsyncGenerator[Letter]:
        """The letters that are meant, in the order in which they were given up.

        What can't be read is among them, with the reason :data:`UNREADABLE`. Raises
        :class:`~tenantry.errors.Unavailable`, and :class:`~tenantry.errors.BadSubject` for names
        that can't be.
        """
        which.check()
        subject = f"dead.{which.tenant or '*'}.{which.service or '*'}.*"
        async for found in scan(self._bus, DEAD, subject):
            if which.takes(letter := read(found)):
                yield letter

    async def any(self, which: Selection) -> bool:
        """Whether there is any that is meant; raises as :meth:`select` does."""
        async with aclosing(self.select(which)) as found:
            return await anext(found, None) is not None

    async def get(self, number: int) -> Letter:
        """The letter with this number; raises :class:`NotFound`."""
        found = await find(self._bus, DEAD, number) if number > 0 else None
        if found is None:
            raise NotFound(f"no dead letter {number}", hint="see `tenantry dead list`")
        return read(found)

    async def drop(self, number: int, *, erase: bool = True) -> bool:
        """Delete a letter; false where it was gone already.

        With `erase` its bytes are overwritten on the server's disk, which takes ten times as long.
        """
        ask = {"seq": number, "no_erase": not erase}
        try:
            await api(self._bus, f"STREAM.MSG.DELETE.{DEAD}", ask)
        except JetStreamError:
            if await find(self._bus, DEAD, number) is None:
                return False
            raise
        return True


def read(found: StoredMessage) -> Letter:
    """The letter that a message of `DEAD` is, or what there is to say of it where it is none."""
    _, tenant, service, seq = found.subject.split(".")
    try:
        about, headers = _load(found, service, seq)
    except (BadMessage, BadSubject) as error:
        about, headers = _unreadable(found, service, seq, error.message), found.headers
    return Letter(number=found.seq, tenant=tenant, about=about, headers=headers, body=found.data)


def _load(found: StoredMessage, service: str, seq: str) -> tuple[DeadLetter, dict[str, str]]:
    about, headers = wire.load(found.headers)
    if (about.service, str(about.seq)) != (service, seq):
        raise BadMessage("its headers are not of its subject")
    subjects.split_action(about.action)
    return about, headers


def _unreadable(found: StoredMessage, service: str, seq: str, why: str) -> DeadLetter:
    return DeadLetter(
        reason=UNREADABLE,
        detail=why,
        attempts=0,
        service=service,
        action="",
        seq=int(seq) if seq.isascii() and seq.isdigit() else 0,
        stored=0.0,
        first_failed=0.0,
        at=found.time,
    )
