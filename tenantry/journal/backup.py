"""A folder with all that JetStream holds for the mesh: one snapshot a stream, and a manifest.

It is written as `<folder>.part` and renamed when it is whole, so a folder with its name is one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tenantry.bus import Bucket, Bus, api
from tenantry.bus.jetstream import STREAM_NOT_FOUND
from tenantry.bus.snapshot import CHUNK, Snapshot
from tenantry.errors import JetStreamError, NotFound, SetupError
from tenantry.messages import Checkpoint
from tenantry.streams import AUDIT, DEAD, JOURNAL, SCHEDULES, TIMERS

CHECKPOINTS = "KV_checkpoints"
LEASES = "KV_leases"
"""Not in a backup: its rows are of processes that are gone when it is restored."""

FORMAT = "tenantry-backup"
VERSION = 2
_READABLE = (1, VERSION)
"""Version 1 has no checkpoints: services had consumers on the journal instead."""

MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_SUFFIX = ".snapshot"

Tell = Callable[[int], None]


class ConsumerAt(msgspec.Struct, frozen=True, kw_only=True):
    """A durable consumer and how far it had come, at the least."""

    name: str
    acknowledged: int


class StreamFile(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its file, and what the stream was at its moment."""

    name: str
    bytes: int
    """Size of the file."""
    sha256: str
    config: dict[str, Any]
    state: dict[str, Any]
    consumers: tuple[ConsumerAt, ...] = ()
    reached: int = 0
    """For the journal: how far it had come when the last snapshot was begun. What the others say of
    its sequences (fences, checkpoints, dead letters) goes no further."""

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.name}{_SUFFIX}"

    @property
    def messages(self) -> int:
        """How many the stream held."""
        return int(self.state["messages"])


class CheckpointAt(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service had come in one partition."""

    time: float
    """When the server stored it, seconds since the epoch."""
    record: Checkpoint


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    format: str
    version: int
    time: float
    """When it was begun, seconds since the epoch."""
    server: str
    """Version of nats-server."""
    tenantry: str
    streams: Annotated[tuple[StreamFile, ...], msgspec.Meta(min_length=1)]
    checkpoints: dict[str, CheckpointAt] = msgspec.field(default_factory=dict)
    """By `<service>.<partition>`, as they were before the first snapshot was begun."""


_decode = msgspec.json.Decoder(Manifest).decode


class _Writing:
    """The file of one stream while its snapshot comes."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        self.size = 0
        self.hash = hashlib.sha256()
        self.file = path.open("xb")
        self._tell = tell

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.size += len(data)
        self._tell(len(data))

    def close(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()


async def stream_names(bus: Bus) -> list[str]:
    """The streams of the mesh that a backup has snapshots of."""
    found: list[str] = []
    while True:
        page = await api(bus, "STREAM.NAMES", {"offset": len(found)})
        found += page.get("streams") or []
        if len(found) >= page["total"]:
            break
    ours = {JOURNAL, DEAD, SCHEDULES, TIMERS, AUDIT}
    return sorted(
        name
        for name in found
        if name in ours or (name.startswith("KV_") and name not in (CHECKPOINTS, LEASES))
    )


async def durables(bus: Bus, stream: str) -> tuple[ConsumerAt, ...]:
    """The durable consumers of a stream, in the order of their names."""
    found: list[dict[str, Any]] = []
    while True:
        page = await api(bus, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        found += page.get("consumers") or []
        if len(found) >= page["total"] or not page.get("consumers"):
            break
    return tuple(
        ConsumerAt(name=each["name"], acknowledged=each["ack_floor"]["stream_seq"])
        for each in sorted(found, key=lambda each: str(each["name"]))
        if each["config"].get("durable_name")
    )


async def take(bus: Bus, folder: Path, *, version: str, tell: Tell = lambda _: None) -> Manifest:
    """Back up into a folder that must not exist; `tell` hears how many bytes have been written.

    The checkpoints are read first: one that is older than the rest only has messages handled again,
    one that is younger would pass some over. Then all snapshots are asked for at once, so that they
    are of the same moment but for milliseconds.

    Raises :class:`SetupError`, and :class:`Unavailable` when the connection is lost: nothing is
    left then, and it may be begun again.
    """
    with _new(folder) as part:
        names = await stream_names(bus)
        if JOURNAL not in names:
            raise NotFound("there is no journal here", hint="is this the server of a mesh?")
        names.sort(key=lambda name: name != JOURNAL)  # what follows from a message comes after it
        begun = round(time.time(), 3)
        checkpoints = await _checkpoints(bus)
        streams = await _copy(bus, part, names, tell)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            time=begun,
            server=bus.server_version,
            tenantry=version,
            streams=tuple(streams),
            checkpoints=checkpoints,
        )
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        with (part / MANIFEST).open("xb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
    return manifest


async def _copy(bus: Bus, part: Path, names: list[str], tell: Tell) -> list[StreamFile]:
    total = 0

    def more(count: int) -> None:
        nonlocal total
        total += count
        tell(total)

    consumers = {name: await durables(bus, name) for name in names}
    begun: list[tuple[Snapshot, _Writing]] = []
    async with AsyncExitStack() as stack:
        for name in names:
            writing = _Writing(part / f"{name}{_SUFFIX}", more)
            stack.callback(writing.file.close)
            snapshot = await Snapshot.begin(bus, name, writing.write)
            stack.push_async_callback(snapshot.stop)
            begun.append((snapshot, writing))
        reached = int((await api(bus, f"STREAM.INFO.{JOURNAL}"))["state"]["last_seq"])
        for snapshot, writing in begun:  # all of them come at the same time
            await snapshot.end()
            writing.close()
    return [
        StreamFile(
            name=snapshot.stream,
            bytes=writing.size,
            sha256=writing.hash.hexdigest(),
            config=snapshot.config,
            state=snapshot.state,
            consumers=consumers[snapshot.stream],
            reached=reached if snapshot.stream == JOURNAL else 0,
        )
        for snapshot, writing in begun
    ]


async def _checkpoints(bus: Bus) -> dict[str, CheckpointAt]:
    """All checkpoints, each as it is now.

    A snapshot of their bucket is no use: of a key that is written while its bytes are on their way
    it may hold nothing.
    """
    bucket, found = Bucket(bus, CHECKPOINTS.removeprefix("KV_"), Checkpoint), {}
    try:
        info = await api(bus, f"STREAM.INFO.{CHECKPOINTS}", {"subjects_filter": ">"})
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return {}
    for subject in sorted(info["state"].get("subjects") or {}):
        key = subject.removeprefix(f"$KV.{bucket.name}.")
        record = await bucket.read(key)
        if record is not None and not record.deleted:
            at = dt.datetime.fromisoformat(record.headers["Nats-Time-Stamp"]).timestamp()
            found[key] = CheckpointAt(time=at, record=bucket.decode(record.body))
    return found


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder beside, which gets its name at the end; what a killed backup left there goes."""
    part = folder.with_name(f"{folder.name}.part")
    if folder.exists():
        raise SetupError(f"{folder} exists already", hint="name a new folder")
    try:
        _clear(part)
        part.mkdir(mode=0o700)
    except OSError as error:
        raise SetupError(f"{folder} can't be written: {error.strerror}") from None
    try:
        yield part
        _sync(part)
        part.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        raise SetupError(f"{folder} can't be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _clear(part: Path) -> None:
    if not part.exists():
        return
    strange = [p.name for p in part.iterdir() if p.suffix != _SUFFIX and p.name != MANIFEST]
    if strange:
        raise SetupError(f"{part} is in the way: it holds {strange[0]}", hint="move it away")
    shutil.rmtree(part)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check(folder: Path, *, tell: Tell = lambda _: None) -> Manifest:
    """Read a backup from the first byte to the last; `tell` hears how many bytes it has seen.

    Raises :class:`SetupError` where it is not whole, was altered, or is no backup.
    """
    manifest = _manifest(folder)
    seen = 0
    for stream in manifest.streams:
        digest, size = hashlib.sha256(), 0
        for chunk in chunks(folder, stream):
            digest.update(chunk)
            size += len(chunk)
            tell(seen + size)
        seen += size
        if size != stream.bytes:
            raise _bad(folder / stream.file, f"has {size} bytes instead of {stream.bytes}")
        if digest.hexdigest() != stream.sha256:
            raise _bad(folder / stream.file, "was altered: its SHA-256 is another")
    return manifest


def chunks(folder: Path, stream: StreamFile) -> Iterator[bytes]:
    """The bytes of one stream, as many at a time as NATS takes."""
    try:
        with (folder / stream.file).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise _bad(folder / stream.file, f"can't be read: {error.strerror}") from None


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        manifest = _decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SetupError(
            f"{folder} is no backup: it has no {MANIFEST}",
            hint="name a folder that `tenantry backup` has made",
        ) from None
    except OSError as error:
        raise _bad(path, f"can't be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _bad(path, "is no manifest of a backup") from None
    if manifest.format != FORMAT:
        raise _bad(path, "is no manifest of a backup")
    if manifest.version not in _READABLE:
        raise SetupError(
            f"{folder} is of version {manifest.version}, which this Tenantry does not know",
            hint="use a newer Tenantry",
        )
    for stream in manifest.streams:
        numbers = [stream.state.get(key) for key in ("messages", "first_seq", "last_seq")]
        if not _NAME.fullmatch(stream.name) or stream.config.get("name") != stream.name:
            raise _bad(path, "names no stream")
        if not all(isinstance(number, int) for number in numbers):
            raise _bad(path, f"does not say what {stream.name} held")
    return manifest


def _bad(path: Path, what: str) -> SetupError:
    return SetupError(f"{path} {what}", hint="take another backup")
