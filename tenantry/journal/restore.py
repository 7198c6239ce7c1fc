"""Bringing a backup into a server: all of it, or it is said that it is not whole."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tenantry.bus import Bucket, Bus, api
from tenantry.bus import jetstream as js
from tenantry.bus.snapshot import restore as restore_stream
from tenantry.errors import Conflict, JetStreamError, Rejection, TenantryError
from tenantry.journal.backup import (
    CHECKPOINTS,
    LEASES,
    Manifest,
    StreamFile,
    Tell,
    chunks,
    durables,
)
from tenantry.messages import Checkpoint
from tenantry.streams import BUCKETS, JOURNAL, RESTORING, bucket_config

_PATIENCE = 20.0
_POLL = 0.1
_AT_ONCE = 500
_NOBODY = "nobody.platform.gap"
_AGAIN = "the server is not whole: run the restore again before any worker"


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that is in the way."""

    name: str
    messages: int


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that was restored and looked at afterwards."""

    name: str
    messages: int
    first_seq: int
    last_seq: int
    consumers: int
    expired: int = 0
    """Messages whose retention was over meanwhile: the server has dropped them at once."""


async def existing(bus: Bus, manifest: Manifest) -> list[Existing]:
    """The streams that a restore would replace: those of the backup that the server has.

    Checkpoints and leases are always among them. What they say is not true of the backup's journal,
    and services would pass messages over.
    """
    names = dict.fromkeys((*(each.name for each in manifest.streams), CHECKPOINTS, LEASES))
    return [
        Existing(name=name, messages=state["messages"])
        for name in names
        if (state := await _state(bus, name)) is not None
    ]


async def unfinished(bus: Bus) -> bool:
    """Whether an earlier restore was interrupted here."""
    return await _state(bus, RESTORING) is not None


async def check_quiet(bus: Bus) -> None:
    """Raise :class:`Conflict` while any worker of the mesh runs: it would write in between."""
    names = set()
    for answer in await bus.gather("$SRV.PING", wait=0.5):
        with contextlib.suppress(msgspec.MsgspecError):
            names.add(str(msgspec.json.decode(answer.data, type=dict[str, Any]).get("name")))
    if names:
        raise Conflict(
            f"workers run: {', '.join(sorted(names))}",
            hint="stop all of them, tenants and router too; only nats-server may run",
        )


async def restore(
    bus: Bus,
    folder: Path,
    manifest: Manifest,
    *,
    replace: bool = False,
    overrides: dict[str, Any] | None = None,
    tell: Tell = lambda _: None,
) -> list[Restored]:
    """Restore every stream of a backup that has been checked, and look at each afterwards.

    `replace` deletes the streams that are there; without it :class:`Conflict` is raised where
    there are some, unless an interrupted restore has left them. `overrides` go over each
    stream's configuration. `tell` hears how many bytes have been sent.
    """
    there = await existing(bus, manifest)
    again = await unfinished(bus)
    if there and not replace and not again:
        raise Conflict(
            f"the server has streams already: {', '.join(each.name for each in there)}",
            hint="restore into an empty server, or give --replace to delete what they hold",
        )
    if not again:
        marker = {"name": RESTORING, "subjects": [f"{RESTORING}.none"], "storage": "file"}
        await api(bus, f"STREAM.CREATE.{RESTORING}", marker)
    try:
        for each in there:
            await api(bus, f"STREAM.DELETE.{each.name}", timeout=60)
        done = [
            await _restore(bus, stream, overrides or {}, sent)
            for stream, sent in _sending(folder, manifest, tell)
        ]
        if manifest.checkpoints:
            done.append(await _restore_checkpoints(bus, manifest, overrides or {}))
    except TenantryError as error:
        error.hint = _AGAIN
        raise
    await api(bus, f"STREAM.DELETE.{RESTORING}")
    return done


def _sending(
    folder: Path, manifest: Manifest, tell: Tell
) -> Iterator[tuple[StreamFile, Iterator[bytes]]]:
    total = 0

    def counted(stream: StreamFile) -> Iterator[bytes]:
        nonlocal total
        for chunk in chunks(folder, stream):
            yield chunk
            total += len(chunk)
            tell(total)

    for stream in manifest.streams:
        yield stream, counted(stream)


async def _restore(
    bus: Bus, stream: StreamFile, overrides: dict[str, Any], sent: Iterator[bytes]
) -> Restored:
    try:
        await restore_stream(bus, {**stream.config, **overrides}, stream.state, sent)
    except BaseException:
        # NATS keeps what it could read: half a stream would look like a whole one.
        with contextlib.suppress(JetStreamError, Rejection):
            await api(bus, f"STREAM.DELETE.{stream.name}")
        raise
    done = await _verified(bus, stream)
    if stream.reached > done.last_seq:
        await _advance(bus, stream.reached - done.last_seq)
    return done


async def _restore_checkpoints(bus: Bus, manifest: Manifest, overrides: dict[str, Any]) -> Restored:
    """Write the checkpoints anew, each as old as it was.

    Who claims a partition looks for what was under way when its checkpoint was written.
    """
    name = CHECKPOINTS.removeprefix("KV_")
    journal = next(each.config for each in manifest.streams if each.name == JOURNAL)
    replicas = int(journal.get("num_replicas", 1))
    config = bucket_config(name, history=BUCKETS[name], replicas=replicas)
    await js.ensure_stream(bus, {**config, **overrides})
    bucket = Bucket(bus, name, Checkpoint)
    for key, saved in manifest.checkpoints.items():
        age = saved.record.age + max(0.0, await _now(bus) - saved.time)
        await bucket.put(key, msgspec.structs.replace(saved.record, age=age))
    state = await bucket.status()
    return Restored(
        name=CHECKPOINTS,
        messages=state["messages"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        consumers=0,
    )


async def _now(bus: Bus) -> float:
    """The time by the server's clock, seconds since the epoch."""
    info = await api(bus, f"STREAM.INFO.{CHECKPOINTS}")
    return dt.datetime.fromisoformat(info["ts"]).timestamp()


async def _advance(bus: Bus, count: int) -> None:
    """Leave out so many sequences of the journal, which the rest of the backup speaks of already.

    A message that got one of them anew would be taken for one that was handled, and be lost.
    """
    config = (await api(bus, f"STREAM.INFO.{JOURNAL}"))["config"]
    await api(bus, f"STREAM.UPDATE.{JOURNAL}", {**config, "max_bytes": -1})  # it may be full
    for begin in range(0, count, _AT_ONCE):
        acks = [
            await js.begin_store(bus, f"tenant.{_NOBODY}", b"")
            for _ in range(begin, min(begin + _AT_ONCE, count))
        ]
        for ack in acks:
            js.stored(await ack)
    await api(bus, f"STREAM.PURGE.{JOURNAL}", {"filter": f"journal.*.{_NOBODY}"})
    await api(bus, f"STREAM.UPDATE.{JOURNAL}", config)


async def _verified(bus: Bus, stream: StreamFile) -> Restored:
    """Compare with the manifest; raises :class:`Conflict` where something is missing.

    In a cluster the consumers come a little after their stream.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        done, fault = await _look(bus, stream)
        if not fault:
            return done
        if time.monotonic() > end:
            raise Conflict(fault)
        await asyncio.sleep(_POLL)


async def _look(bus: Bus, stream: StreamFile) -> tuple[Restored, str]:
    """What came back, and what is wrong with it."""
    state = await _state(bus, stream.name) or {}
    consumers = {each.name: each.acknowledged for each in await durables(bus, stream.name)}
    done = Restored(
        name=stream.name,
        messages=int(state.get("messages", 0)),
        first_seq=int(state.get("first_seq", 0)),
        last_seq=int(state.get("last_seq", 0)),
        consumers=len(consumers),
    )
    wanted, missing = stream.state["last_seq"], stream.messages - done.messages
    if stream.config.get("allow_msg_schedules"):  # what is due comes at once, as messages
        wrong = done.last_seq < wanted
    else:
        may_expire = bool(stream.config.get("allow_msg_ttl") or stream.config.get("max_age"))
        wrong = done.last_seq != wanted or missing < 0 or (missing > 0 and not may_expire)
        done = msgspec.structs.replace(done, expired=max(missing, 0))
    if wrong:
        return done, (
            f"{stream.name} came back with {done.messages} messages up to {done.last_seq}, instead "
            f"of {stream.messages} up to {wanted}"
        )
    for each in stream.consumers:
        if consumers.get(each.name, -1) < each.acknowledged:
            return done, f"the consumer {each.name} of {stream.name} did not come back"
    return done, ""


async def _state(bus: Bus, stream: str) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = (await api(bus, f"STREAM.INFO.{stream}"))["state"]
    except JetStreamError as error:
        if error.err_code == js.STREAM_NOT_FOUND:
            return None
        raise
    return state
