"""Leases tell who is alive, for sure: an instance renews its own; who takes over deletes it first.

A lease is a key that its holder writes anew each second by compare-and-set. The others hear these
writes as plain messages, so nobody polls. What is heard is a hint only: a write may be refused
after it was heard, and silence may be one's own. So a lease that was silent for long enough is
read, and deleted only if it still is what was heard last.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import Bucket, Bus, Message, Subscription
from tenantry.bus.kv import Record, is_marker
from tenantry.bus.reading import read
from tenantry.delivery import timing
from tenantry.errors import Conflict, JetStreamError, NotFound, Rejection
from tenantry.messages.checkpoints import Lease
from tenantry.wire.headers import TTL

BUCKET = "leases"
_AGAIN = 0.1
_PATIENCE = 30.0
_RECONNECT = 3.0
"""How much later than we others may connect again after the same restart of the server, seconds."""

_GONE_LOOKS = (0.0, 0.05, 0.2, 1.0)
"""A deletion is heard before it is stored: when to look for it, seconds."""

_MARKER = {TTL: "3600s"}
"""A deleted lease is never used again: without an end its marker would be read for ever."""

log = structlog.get_logger("tenantry.delivery")
_decode = msgspec.json.Decoder(Lease).decode


@dataclass(slots=True)
class _Heard:
    """The last renewal that was heard of another instance's lease."""

    lease: Lease
    at: float
    """By `time.monotonic`."""


class Leases:
    """The lease of this instance, and what is known of those of the same service.

    `changed` is called when an instance has come or gone, `fenced` when others have taken this one
    for dead: all that it owned is lost, and it goes on with a new lease. `renewed` is called after
    each renewal.
    """

    def __init__(
        self,
        bus: Bus,
        service: str,
        version: str,
        instance: str,
        *,
        changed: Callable[[], None],
        fenced: Callable[[], None],
        renewed: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._service = service
        self._version = version
        self._instance = instance
        self._changed = changed
        self._fenced = fenced
        self._renewed = renewed
        self._bucket: Bucket[Lease] = Bucket(bus, BUCKET, Lease)
        self._subject = f"$KV.{BUCKET}.{service}."
        self._heard: dict[str, _Heard] = {}
        self._valid_until = 0.0
        self._revision = 0
        self._count = 0
        self._again = asyncio.Event()
        self._name = ""
        """The lease that is asked for, or held."""
        self.id = ""
        """The lease of now; empty while there is none."""
        self._subscription: Subscription | None = None
        self._forget: Callable[[], None] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: set[asyncio.Task[None]] = set()

    # --- questions -----------------------------------------------------------------------------

    @property
    def valid(self) -> bool:
        """Tell whether nobody can have taken over what this instance owns."""
        return time.monotonic() < self._valid_until

    def instances(self) -> dict[str, str]:
        """Version by lease of all that are alive, this one too."""
        found = {name: heard.lease.version for name, heard in self._heard.items()}
        if self.id:
            found[self.id] = self._version
        return found

    async def exists(self, lease: str) -> bool:
        """Tell whether a lease is alive. Raises as :meth:`Bucket.read` and `delete` do.

        A replica that lags behind may not have a new lease yet. So one that is not there is deleted
        all the same, over nothing: that is refused where it lives, and else ends it for good.
        """
        key = f"{self._service}.{lease}"
        record = await self._bucket.read(key)
        if record is not None:
            return not record.deleted
        try:
            await self._bucket.delete(key, 0, _MARKER)
        except Conflict:
            return True
        return False

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Hear the others, then take a lease; returns when it is held and the others are known."""
        self._subscription = await self._bus.listen(f"{self._subject}*", self._hear)
        self._forget = self._bus.on_reconnect(self._reconnected)
        await self._first_load()
        self._tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._watch())]
        while not self.id:
            self._again.clear()
            await self._again.wait()

    async def stop(self) -> None:
        """Give the lease up."""
        self._forget()
        await tasks.end(*self._tasks, *self._looking)
        if self._subscription is not None:
            await self._subscription.stop()
        lease, self.id, self._valid_until = self.id, "", 0.0
        if lease and self._bus.connected:
            with contextlib.suppress(Rejection, JetStreamError):
                await self._bucket.delete(f"{self._service}.{lease}", self._revision, _MARKER)

    # --- this instance -------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            if not self._name:
                self._name = f"{self._instance}-{secrets.token_hex(3)}"
                self._revision = self._count = 0
            sent = time.monotonic()
            if await self._write(f"{self._service}.{self._name}"):
                self._valid_until = sent + timing.LEASE
                if self.id != self._name:
                    self.id = self._name
                    self._again.set()
                    self._changed()
                self._renewed()
                await asyncio.sleep(max(0.0, sent + timing.RENEW - time.monotonic()))
            else:
                await asyncio.sleep(_AGAIN)

    async def _write(self, key: str) -> bool:
        """Renew; False where it must be tried again."""
        self._count += 1
        lease = Lease(service=self._service, version=self._version, renewed=self._count)
        try:
            self._revision = await self._bucket.update(key, lease, self._revision)
        except Conflict:
            await self._conflicted(key)
            return False
        except (Rejection, JetStreamError) as error:
            log.debug("lease not renewed", service=self._service, why=str(error))
            return False
        return True

    async def _conflicted(self, key: str) -> None:
        """Our last write was stored and its answer lost, or somebody has fenced us.

        What is there may also be older: a server that was restored has lost the last renewals.
        """
        with contextlib.suppress(Rejection, JetStreamError):
            record = await self._bucket.read(key)
            if record is not None and not record.deleted:
                self._revision = record.revision
                return
            self._name = ""
            if self.id:
                log.warning("fenced", service=self._service, lease=self.id)
                self.id, self._valid_until = "", 0.0
                self._fenced()
                self._changed()

    # --- the others ----------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        name = message.subject.removeprefix(self._subject)
        if name.startswith(f"{self._instance}-"):
            return
        if is_marker(message.headers or {}):
            task = asyncio.get_running_loop().create_task(self._look_for(name))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
            return
        with contextlib.suppress(msgspec.MsgspecError):
            self._note(name, _decode(message.data))

    def _note(self, name: str, lease: Lease) -> None:
        new = name not in self._heard
        self._heard[name] = _Heard(lease, time.monotonic())
        if new:
            self._changed()

    def _lose(self, name: str) -> None:
        if self._heard.pop(name, None) is not None:
            self._changed()

    async def _look_for(self, name: str) -> None:
        """Somebody says that a lease is gone: see whether it is."""
        for pause in _GONE_LOOKS:
            await asyncio.sleep(pause)
            with contextlib.suppress(Rejection, JetStreamError):
                if not await self.exists(name):
                    self._lose(name)
                    return

    def _reconnected(self) -> None:
        """After a restart of the server others may connect again later than we do."""
        self._listen_anew(_RECONNECT)

    def _listen_anew(self, later: float = 0.0) -> None:
        """Count everybody's silence anew: nothing was heard while we were away."""
        now = time.monotonic()
        for heard in self._heard.values():
            heard.at = now + later

    async def _watch(self) -> None:
        loaded = last = time.monotonic()
        while True:
            await asyncio.sleep(timing.WATCH)
            now = time.monotonic()
            if now - last > timing.RENEW or not self._bus.connected:
                self._listen_anew()  # it is we who slept
            last = now
            try:
                if now - loaded > timing.RELOAD:
                    loaded = now
                    await self._load()
                for name, heard in list(self._heard.items()):
                    if now - heard.at > timing.TAKEOVER and self.valid:
                        await self._fence(name, heard)
            except (Rejection, JetStreamError) as error:
                log.debug("leases not watched", service=self._service, why=str(error))

    async def _first_load(self) -> None:
        """Wait for the bucket: the control plane makes it, and may be about to start."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                await self._load()
            except (Rejection, JetStreamError) as error:
                if time.monotonic() > end:
                    raise NotFound(
                        f"the bucket {BUCKET} can't be read: {error}",
                        hint="start the control plane: `tenantry run tenants`",
                    ) from None
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def _load(self) -> None:
        """Know the leases that there are. Raises what :func:`read` raises."""
        found = set()
        async for each in read(self._bus, f"KV_{BUCKET}", f"{self._subject}*"):
            name = each.subject.removeprefix(self._subject)
            if is_marker(each.headers) or name.startswith(f"{self._instance}-"):
                continue
            found.add(name)
            if name not in self._heard:
                self._note(name, _decode(each.data))

    async def _fence(self, name: str, heard: _Heard) -> None:
        """Take a silent instance for dead, unless its lease says more than was heard."""
        key = f"{self._service}.{name}"
        record = await self._bucket.read(key)
        if record is None or record.deleted:
            self._lose(name)
            return
        if (there := _decode(record.body)).renewed != heard.lease.renewed:
            self._heard[name] = _Heard(there, time.monotonic())
            return
        if await self._delete(key, record):
            log.warning("fences", service=self._service, lease=name)
            self._lose(name)

    async def _delete(self, key: str, record: Record) -> bool:
        try:
            await self._bucket.delete(key, record.revision, _MARKER)
        except Conflict:
            return False  # it lives
        return True
