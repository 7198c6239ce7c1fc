"""The bucket `state` as one instance reads it: never older than what it knows of a key.

A read may be answered by any replica of the bucket, one that lags behind too. What this instance
has written itself, and what a conflict has told it, is a lower bound for what it reads.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import structlog

from tenantry.bus import Bucket, Bus
from tenantry.bus import jetstream as js
from tenantry.bus.kv import Record
from tenantry.errors import Conflict, JetStreamError, Rejection, Unavailable
from tenantry.wire.headers import FENCE

BUCKET = "state"

KEPT = 8192
"""How many keys are remembered, about 400 bytes each."""

_PAUSE = 0.002
_LONGEST = 0.05
"""First and longest pause between two tries to read or write a key, seconds."""

_PATIENCE = 2.0
"""How long a read waits for a revision that this instance knows, and a write for another one,
seconds."""

_TRIES = 20
_STEP = 0.02
"""How often a value is read and written anew, with a pause that grows by so many seconds."""

_UNDER_WAY = 10164
"""The error of JetStream for a write over a revision while another write of the key is under way.

Unlike a conflict it says nothing about the revision that is there.
"""

_ONE_REPLICA = (10126, 10074)
"""The errors of JetStream for a consumer with two replicas where the stream has only one."""

log = structlog.get_logger("tenantry.dispatch")


class Seen(NamedTuple):
    """A key as it was when it was last read or written."""

    revision: int
    """0 where there was nothing."""
    fence: int
    exists: bool = True
    """False where there was nothing or only the marker of a deleted value."""

    @classmethod
    def of(cls, record: Record | None) -> Seen:
        """Describe a record."""
        if record is None:
            return cls(0, 0, exists=False)
        return cls(record.revision, fence_in(record), exists=not record.deleted)


class Known(NamedTuple):
    """The knowledge of this instance about a key."""

    least: int
    """The key has this revision or a later one."""
    seen: Seen | None = None
    """The key as it was written or read here last; None where somebody has changed it since."""
    claim: object | None = None
    """The claim of the partition under which the key was written here last."""
    proven: int = 0
    """The revision that was written under `claim`."""


class Latest(Bucket[msgspec.Raw]):
    """The bucket `state` with what this instance knows of its keys."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, BUCKET, msgspec.Raw)
        self._known: dict[str, Known] = {}
        self._replicated: bool | None = None

    def seen(self, key: str) -> Seen | None:
        """The key as it was last seen here, if that is remembered."""
        known = self._known.get(key)
        return known.seen if known is not None else None

    def least(self, key: str) -> int:
        """The revision that the key has at least, as far as it is known here."""
        known = self._known.get(key)
        return known.least if known is not None else 0

    def is_proven(self, key: str, revision: int, claim: object) -> bool:
        """Tell whether nothing of a former owner can be missing in a read that gave `revision`.

        That holds once the key was written under this `claim` of the partition: the write was a
        compare-and-set, so what the former owner has written was seen, and can't come later.
        """
        known = self._known.get(key)
        return known is not None and known.claim is claim and revision >= known.proven

    def newest(self, begin: str) -> int:
        """The highest revision that is known of the keys that begin so; 0 for none."""
        found = (known.least for key, known in self._known.items() if key.startswith(begin))
        return max(found, default=0)

    def remember(self, key: str, seen: Seen, claim: object | None = None) -> None:
        """Remember a key as it was read or, with the `claim`, as it was written.

        The key that was remembered first makes room.
        """
        known = self._known.pop(key, None)
        if known is not None and known.least > seen.revision:
            self._known[key] = known  # an answer that was overtaken
            return
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        if claim is not None:
            self._known[key] = Known(seen.revision, seen, claim, seen.revision)
        elif known is not None:
            self._known[key] = known._replace(least=seen.revision, seen=seen)
        else:
            self._known[key] = Known(seen.revision, seen)

    async def read(self, key: str, least: int = 0) -> Record | None:
        """Read a key; asks again while the answer is older than `least` or than what is known."""
        known = self._known.get(key)
        if known is not None and known.least > least:
            least = known.least
        record = await super().read(key)
        if not least or _revision(record) >= least:
            return record
        return await self._read_again(key, least, record)

    async def write(
        self,
        key: str,
        body: bytes,
        revision: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write as :meth:`Bucket.write` does, and remember the outcome, a conflict too.

        A replicated bucket refuses a write over a revision while another write of the key is under
        way, one that was just acknowledged too. Then it is tried again for at most 2 s; nothing was
        written where :class:`Unavailable` is raised for that.
        """
        try:
            new = await self._write_soon(key, body, revision, headers)
        except Conflict:
            self._overtaken(key, revision or 0)
            raise
        self.remember(key, Seen.of(Record(body, new, dict(headers or {}))))
        return new

    async def renew(self, key: str, record: Record | None, claim: object | None) -> None:
        """Write a key anew as it was read: the same value under the same fence.

        Nothing is left of a key that does not exist but the marker of a deletion. Raises
        :class:`Conflict` where the key has changed: an old value was read, for example.
        """
        seen = Seen.of(record)
        fields = {FENCE: str(seen.fence)} if seen.fence else {}
        if record is not None and seen.exists:
            new = await self.write(key, record.body, seen.revision, fields)
        else:
            new = await self.delete(key, seen.revision, fields)
        self.remember(key, seen._replace(revision=new), claim)

    async def current(self, key: str, service: str, claim: object | None = None) -> Record | None:
        """Read a key so that no write of a former owner can come later.

        Where the bucket is replicated it is written anew. Raises what :meth:`write` raises, and
        :class:`Unavailable` where others change it all the time.
        """
        if not await self.is_replicated(service):
            return await self.read(key)
        for tried in range(_TRIES):
            record = await self.read(key)
            try:
                await self.renew(key, record, claim)
            except Conflict:
                await asyncio.sleep(tried * _STEP)
            else:
                return record
        raise Unavailable(f"{key} changes all the time")

    async def is_replicated(self, service: str) -> bool:
        """Tell whether a replica that lags behind may answer a read; asked until known.

        Asks for a consumer of the service's own values with two replicas, which a bucket with one
        refuses. The information of a stream would say it too, but it also names all keys of all
        services, so a service is not allowed to ask for it. A bucket that gets more replicas later
        is noticed at the next start of the worker.
        """
        if self._replicated is None:
            try:
                await self._probe(service)
            except JetStreamError as error:
                if error.err_code not in _ONE_REPLICA:
                    return True
                self._replicated = False
            except Rejection:
                return True
            else:
                self._replicated = True
        return self._replicated

    # --- inside --------------------------------------------------------------------------------

    async def _write_soon(
        self, key: str, body: bytes, revision: int | None, headers: Mapping[str, str] | None
    ) -> int:
        loop, pause = asyncio.get_running_loop(), _PAUSE
        end = loop.time() + _PATIENCE
        while True:
            try:
                return await super().write(key, body, revision, headers)
            except JetStreamError as error:
                if error.err_code != _UNDER_WAY:
                    raise
            if loop.time() > end:
                raise Unavailable(f"another write of {key} is under way")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _read_again(self, key: str, least: int, record: Record | None) -> Record | None:
        loop, pause = asyncio.get_running_loop(), _PAUSE
        end = loop.time() + _PATIENCE
        while loop.time() < end and await self.is_replicated(key.split(".")[1]):
            await asyncio.sleep(pause)
            record = await super().read(key)
            if _revision(record) >= least:
                return record
            pause = min(2 * pause, _LONGEST)
        # The server has lost it, or it was purged: nothing is known of the key any more.
        log.info("a value is older than before", key=key, known=least, found=_revision(record))
        self._known.pop(key, None)
        return record

    def _overtaken(self, key: str, revision: int) -> None:
        """A write over `revision` was refused: there is a later one."""
        known = self._known.pop(key, None) or Known(0)
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[key] = known._replace(least=max(known.least, revision + 1), seen=None)

    async def _probe(self, service: str) -> None:
        stream, name = f"KV_{self.name}", f"probe-{secrets.token_hex(8)}"
        config = {
            "name": name,
            "ack_policy": "none",
            "filter_subject": f"$KV.{self.name}.*.{service}.>",
            "mem_storage": True,
            "num_replicas": 2,
            "inactive_threshold": 5_000_000_000,
        }
        await js.api(
            self.bus,
            f"CONSUMER.CREATE.{stream}.{name}.{config['filter_subject']}",
            {"stream_name": stream, "config": config},
        )
        await js.api(self.bus, f"CONSUMER.DELETE.{stream}.{name}")


def fence_in(record: Record) -> int:
    """The fence that a record carries; 0 for none."""
    try:
        return int(record.headers.get(FENCE, "0"))
    except ValueError:
        return 0


def _revision(record: Record | None) -> int:
    return record.revision if record is not None else 0
