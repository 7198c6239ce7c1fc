"""JetStream key-value buckets: reads, compare-and-set writes, and tables kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import structlog

from tenantry import tasks
from tenantry.bus import jetstream
from tenantry.bus.connection import Bus, Message
from tenantry.bus.pull import Pull
from tenantry.bus.scan import find_last
from tenantry.errors import Conflict, JetStreamError, NotFound, Rejection

T = TypeVar("T")
_OPERATION = "KV-Operation"
_TRIES = 10
_PAUSE = 0.02
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_RECHECK = 15.0
_EXPIRES = 12.0
"""How long a watch's pull stays open, seconds: an idle table asks no oftener."""


log = structlog.get_logger("tenantry.bus")


def is_marker(headers: Mapping[str, str]) -> bool:
    """Whether a message of a bucket is only what a deleted key leaves."""
    return _OPERATION in headers


class Entry(NamedTuple, Generic[T]):
    """A value and the revision it has."""

    value: T
    revision: int


class Record(NamedTuple):
    """What a key holds as it lies there: a value, or the marker that a deleted one leaves."""

    body: bytes
    revision: int
    headers: dict[Any, str]

    @property
    def deleted(self) -> bool:
        """Whether it is only a marker."""
        return is_marker(self.headers)


class Changed(NamedTuple, Generic[T]):
    """What a key holds after a change, and its new revision; 0 where there was none to make."""

    value: T | None
    revision: int


class Bucket(Generic[T]):
    """One bucket whose values are all of one type."""

    def __init__(self, bus: Bus, name: str, kind: type[T]) -> None:
        self.name = name
        self.bus = bus
        self.decode = msgspec.json.Decoder(kind).decode

    async def status(self) -> dict[str, Any]:
        """The state of the stream behind; raises :class:`JetStreamError` where there is none."""
        state: dict[str, Any] = (await jetstream.api(self.bus, f"STREAM.INFO.KV_{self.name}"))[
            "state"
        ]
        return state

    async def get(self, key: str) -> Entry[T] | None:
        """The value of `key`, or None."""
        record = await self.read(key)
        if record is None or record.deleted:
            return None
        return Entry(self.decode(record.body), record.revision)

    async def read(self, key: str) -> Record | None:
        """What lies under `key`, a marker too, or None."""
        answer = await self.bus.call(f"$JS.API.DIRECT.GET.KV_{self.name}.$KV.{self.name}.{key}")
        headers: dict[Any, str] = answer.headers or {}
        if headers.get("Status") == "404":
            return None
        return Record(answer.data, int(headers["Nats-Sequence"]), headers)

    async def create(self, key: str, value: T) -> int:
        """Write a key that must not exist; raises :class:`Conflict` where it does."""
        try:
            return await self.update(key, value, 0)
        except Conflict:
            # A deleted key leaves a marker behind, and the marker has a revision.
            record = await self.read(key)
            if record is None or not record.deleted:
                raise
            return await self.update(key, value, record.revision)

    async def update(self, key: str, value: T, revision: int) -> int:
        """Write over exactly `revision`; raises :class:`Conflict` where it has changed."""
        return await self.write(key, msgspec.json.encode(value), revision)

    async def put(self, key: str, value: T) -> int:
        """Write, whatever is there; returns the new revision."""
        return await self.write(key, msgspec.json.encode(value))

    async def change(self, key: str, change: Callable[[T | None], T | None]) -> Changed[T]:
        """Change what is there now, None for nothing; again where another was quicker.

        Raises what `change` raises, and :class:`Conflict` where others change it all the time.
        """
        for tried in range(_TRIES):
            await asyncio.sleep(tried * _PAUSE)  # a replica of the stream may lag behind
            record = await self.read(key)
            there = None
            if record is not None and not record.deleted:
                there = self.decode(record.body)
            value = change(there)
            if value == there:
                return Changed(value, 0)
            revision = record.revision if record is not None else 0
            try:
                if value is None:
                    return Changed(None, await self.delete(key, revision))
                return Changed(value, await self.update(key, value, revision))
            except Conflict:
                continue
        raise Conflict(f"{self.name}/{key} changes all the time")

    async def delete(
        self, key: str, revision: int | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Delete, exactly `revision` if given; the history keeps a marker, with `headers`."""
        return await self.write(key, b"", revision, {**(headers or {}), _OPERATION: "DEL"})

    async def write(
        self,
        key: str,
        body: bytes,
        revision: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Write bytes, over exactly `revision` if given; raises :class:`Conflict`."""
        fields = dict(headers or {})
        if revision is not None:
            fields[_EXPECTED] = str(revision)
        try:
            ack = await jetstream.store(self.bus, f"$KV.{self.name}.{key}", body, headers=fields)
        except JetStreamError as error:
            if error.err_code == jetstream.WRONG_LAST_SEQUENCE:
                raise Conflict(f"{self.name}/{key} has changed meanwhile") from None
            raise
        return ack.seq


class Table(Generic[T]):
    """A bucket in memory, kept current by a watch that outlives reconnects and restarts.

    Reads are plain dictionary look-ups. While NATS is away the last good state stays; a value
    that does not decode is logged and the last good one of its key stays.
    """

    def __init__(
        self,
        bucket: Bucket[T],
        *,
        changed: Callable[[str, T | None], None] | None = None,
        filter: str = ">",  # noqa: A002  (NATS's own word)
    ) -> None:
        self.rows: dict[str, T] = {}
        self.revision = 0
        self._bucket = bucket
        self._prefix = f"$KV.{bucket.name}."
        self._filter = filter
        self._changed = changed
        self._full = asyncio.Event()
        self._restart = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._seen: set[str] | None = None
        self._end = 0
        self._own: dict[str, int] = {}
        """Keys that we wrote ourselves, by the revision that the watch has yet to reach."""
        self._forget: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.rows)

    def listen(self, changed: Callable[[str, T | None], None]) -> None:
        """Call `changed(key, value)` at each change from now on; None means deleted."""
        self._changed = changed

    def get(self, key: str) -> T | None:
        """The value of `key` as last heard."""
        return self.rows.get(key)

    async def start(self, *, timeout: float = 30.0) -> None:
        """Load the bucket and keep it current; returns when everything of now is loaded."""
        self._forget = self._bucket.bus.on_reconnect(self._restart.set)
        self._task = asyncio.create_task(self._watch())
        loaded = asyncio.create_task(self._full.wait())
        done, _ = await asyncio.wait(
            {loaded, self._task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if loaded not in done:
            loaded.cancel()
            await self.stop()
            raise NotFound(f"the bucket {self._bucket.name} can't be read")

    async def stop(self) -> None:
        """Watch no more."""
        self._forget()
        await tasks.end(self._task)

    async def reach(self, revision: int, *, timeout: float = 5.0) -> None:
        """Return when the table has seen `revision`."""
        async with asyncio.timeout(timeout):
            while self.revision < revision:
                self._moved.clear()
                await self._moved.wait()

    async def sync(self, *, timeout: float = 5.0) -> None:
        """Return when the table has seen all that was written until now."""
        bucket = self._bucket
        stream = f"KV_{bucket.name}"
        if last := await find_last(bucket.bus, stream, f"{self._prefix}{self._filter}"):
            await self.reach(last, timeout=timeout)

    def wrote(self, key: str, value: T | None, revision: int) -> None:
        """Take over what we have written ourselves, before the watch tells of it.

        Where it has told already, by now it may have told of something newer.
        """
        if revision <= self.revision and self._seen is None:
            return
        self._own[key] = revision
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value

    async def _watch(self) -> None:
        while True:
            self._restart.clear()
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001  (a watch that ends would never be missed)
                log.warning("watch failed", bucket=self._bucket.name, why=str(error))
                await asyncio.sleep(0.5)

    async def _follow(self) -> None:
        """One life of the watch: a full load, then every change, until something breaks."""
        bus, stream = self._bucket.bus, f"KV_{self._bucket.name}"
        name = f"watch-{secrets.token_hex(8)}"
        config = {
            "name": name,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "filter_subject": f"{self._prefix}{self._filter}",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30_000_000_000,
        }
        info = await jetstream.api(
            bus,
            f"CONSUMER.CREATE.{stream}.{name}.{config['filter_subject']}",
            {"stream_name": stream, "config": config},
        )
        self._seen = set()
        pull = Pull(
            bus,
            stream,
            name,
            receive=self._receive,
            room=lambda: 256,
            lost=self._restart.set,
            expires=_EXPIRES,
        )
        await pull.start()
        try:
            if not info.get("num_pending"):
                self._loaded()
            await self._wait_for_break()
        finally:
            await pull.stop()
            with contextlib.suppress(Rejection, JetStreamError):
                await jetstream.api(bus, f"CONSUMER.DELETE.{stream}.{name}", timeout=1)

    async def _wait_for_break(self) -> None:
        """Now and then compare with the stream: a watch that has silently fallen behind ends."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RECHECK):
                    await self._restart.wait()
                    return
            behind = self.revision
            end = (await self._bucket.status())["last_seq"]
            if self._filter == ">" and self.revision == behind and end not in (behind, self._end):
                self._end = end  # once for each: what had this number may have been purged
                log.warning("watch fell behind", bucket=self._bucket.name, at=behind)
                return

    def _receive(self, message: Message) -> None:
        key = message.subject.removeprefix(self._prefix)
        delivery = jetstream.Delivery.of(message)
        own = self._own.get(key, 0)
        if own <= delivery.seq:
            self._own.pop(key, None)
        if own > delivery.seq:
            if self._seen is not None:
                self._seen.add(key)  # older than what we know: ours is still to come
        elif is_marker(message.headers or {}):
            self._drop(key)
        else:
            self._take(key, message.data)
        self.revision = delivery.seq
        self._moved.set()
        if delivery.pending == 0 and self._seen is not None:
            self._loaded()

    def _take(self, key: str, body: bytes) -> None:
        if self._seen is not None:
            self._seen.add(key)
        try:
            value = self._bucket.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("value kept as it was", bucket=self._bucket.name, key=key, why=str(error))
            return
        if self.rows.get(key) != value:
            self.rows[key] = value
            self._tell(key, value)

    def _drop(self, key: str) -> None:
        if self.rows.pop(key, None) is not None:
            self._tell(key, None)

    def _loaded(self) -> None:
        """All of the bucket is here: what was not in it any more goes."""
        if self._seen is not None:
            for key in self.rows.keys() - self._seen - self._own.keys():
                self._drop(key)
        self._seen = None
        self._full.set()

    def _tell(self, key: str, value: T | None) -> None:
        if self._changed is not None:
            try:
                self._changed(key, value)
            except Exception:
                log.exception("listener failed", bucket=self._bucket.name, key=key)
