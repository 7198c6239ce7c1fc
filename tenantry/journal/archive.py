"""A file with one tenant's journal: JSON lines, the first and the last about the file itself.

    {"format": "tenantry-journal", "version": 1, "tenant": "acme", …}
    {"seq": 17, "time": 1795234794.725, "action": "orders.import", "headers": {…}, "data": "…"}
    {"end": true, "count": 1, "sha256": "…"}

`data` is base64, `sha256` is over all lines before the last one. With a name that ends in `.gz`
it is compressed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import msgspec

from tenantry import subjects
from tenantry.errors import SetupError

T = TypeVar("T")

FORMAT = "tenantry-journal"
VERSION = 1

_MAX_LINE = 96 * 1024 * 1024  # NATS takes no message over 64 MiB
_GZIP = b"\x1f\x8b"
_LEVEL = 5


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str
    version: int
    tenant: str
    journal: str
    """Which journal it comes from: 12 hex digits."""
    since: int
    """First sequence of the span."""
    until: int
    """First sequence that is not in the span."""
    exported: float


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message. Its context is left out: in another mesh it would prove nothing."""

    seq: Annotated[int, msgspec.Meta(ge=1)]
    time: float
    action: str
    """`<service>.<action>`."""
    headers: dict[str, str]
    data: bytes


class End(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last line."""

    end: bool
    count: int
    sha256: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds."""

    head: Head
    count: int
    sha256: str
    first: Line | None = None
    last: Line | None = None


_head = msgspec.json.Decoder(Head).decode
_line = msgspec.json.Decoder(Line).decode
_end = msgspec.json.Decoder(End).decode


class Sink(Protocol):
    """Where a file is written to."""

    def write(self, data: bytes, /) -> int:
        """Take these bytes."""
        ...


class Writer:
    """Writes the lines of one file, made by :func:`create`."""

    def __init__(self, file: Sink, head: Head) -> None:
        self.count = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._put(head)

    def add(self, line: Line) -> None:
        """The next message."""
        self._put(line)
        self.count += 1

    def finish(self) -> str:
        """Write the last line; returns the hash."""
        digest = self._hash.hexdigest()
        self._put(End(end=True, count=self.count, sha256=digest))
        return digest

    def _put(self, value: Head | Line | End) -> None:
        text = msgspec.json.encode(value) + b"\n"
        self._hash.update(text)
        self._file.write(text)


@contextmanager
def create(path: Path, *, force: bool = False) -> Iterator[Sink]:
    """A file that is there when it is whole, readable by its owner alone.

    It is written beside, as `<name>.part`; what a killed export has left there is written over.
    Raises :class:`SetupError` where `path` exists, unless `force`, or can't be written.
    """
    part = path.with_name(f"{path.name}.part")
    if path.exists() and not force:
        raise _exists(path)
    try:
        part.unlink(missing_ok=True)
        raw = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise SetupError(f"{path} can't be written: {error.strerror}") from None
    try:
        with raw:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
                    yield packed
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        _publish(part, path, force=force)
    except OSError as error:
        raise SetupError(f"{path} can't be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _publish(part: Path, path: Path, *, force: bool) -> None:
    if force:
        part.replace(path)
    else:
        try:
            path.hardlink_to(part)  # unlike a rename, never over another
        except FileExistsError:
            raise _exists(path) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exists(path: Path) -> SetupError:
    return SetupError(f"{path} exists already", hint="name another file, or give --force")


def check(path: Path, *, tell: Callable[[int], None] = lambda _: None) -> Summary:
    """Read a file from the first byte to the last; `tell` hears how many messages it has seen.

    Raises :class:`SetupError` where it is not whole, was altered, or is no such file.
    """
    with _opened(path) as lines:
        digest = hashlib.sha256()
        head = _read_head(path, text := next(lines, b""))
        digest.update(text)
        first: Line | None = None
        last: Line | None = None
        for count, text in enumerate(lines):
            if text.startswith(b'{"end"'):
                end = _decoded(path, text, _end, count)
                if end.count != count or end.sha256 != digest.hexdigest():
                    raise _bad(path, "was altered: its count or its hash is not what it says")
                if next(lines, b""):
                    raise _bad(path, "goes on after its end")
                return Summary(head=head, count=count, sha256=end.sha256, first=first, last=last)
            digest.update(text)
            line = _decoded(path, text, _line, count)
            _check_line(path, line, last, count + 1)
            first, last = first or line, line
            tell(count + 1)
    raise _bad(path, "is cut short: its last line is missing")


def read(path: Path) -> Iterator[Line]:
    """The messages of a file that :func:`check` has found good."""
    with _opened(path) as lines:
        next(lines, b"")
        for text in lines:
            if text.startswith(b'{"end"'):
                return
            yield _line(text)


def _read_head(path: Path, text: bytes) -> Head:
    try:
        head = _head(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _bad(path, "is no exported journal") from None
    if head.format != FORMAT or not subjects.is_tenant(head.tenant) or not head.journal.isalnum():
        raise _bad(path, "is no exported journal")
    if head.version != VERSION:
        raise SetupError(
            f"{path} is of version {head.version}, which this Tenantry does not know",
            hint="use a newer Tenantry",
        )
    return head


def _check_line(path: Path, line: Line, before: Line | None, number: int) -> None:
    service, _, action = line.action.partition(".")
    if not subjects.is_name(service) or not subjects.is_name(action):
        raise _bad(path, f"names no action in message {number}")
    if before is not None and line.seq <= before.seq:
        raise _bad(path, f"is out of order at message {number}")


def _decoded(path: Path, text: bytes, decode: Callable[[bytes], T], count: int) -> T:
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if not text.endswith(b"\n"):
            raise _bad(path, "is cut short: its last line is missing") from None
        raise _bad(path, f"is broken after message {count}") from None


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as file:
                    yield _lines(path, file)
            else:
                yield _lines(path, raw)
    except EOFError:
        raise _bad(path, "is cut short") from None
    except (gzip.BadGzipFile, zlib.error):
        raise _bad(path, "is broken: it can't be unpacked") from None
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}") from None


def _lines(path: Path, file: gzip.GzipFile | BufferedReader) -> Iterator[bytes]:
    while text := file.readline(_MAX_LINE):
        if len(text) == _MAX_LINE:
            raise _bad(path, "is no exported journal: a line is too long")
        yield text


def _bad(path: Path, what: str) -> SetupError:
    return SetupError(f"{path} {what}", hint="nothing was imported")
