"""`tenantry logs`: what the processes of a mesh on this machine have logged, in order of time."""

from __future__ import annotations

import contextlib
import datetime as dt
import heapq
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from cyclopts import Parameter

from tenantry import subjects
from tenantry.cli import options, output
from tenantry.errors import NotFound, SetupError
from tenantry.local.state import DEFAULT, StateFolder

_POLL = 0.2
_FOLLOWED = 10
"""Lines from before that are shown when nothing but --follow is said."""

_AT = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,6})?)(Z?)")
"""The time of a line: ours are in UTC and say so, those of nats-server and Valkey are local."""

_json = msgspec.json.Decoder(dict)


class Line(NamedTuple):
    """One line of a log; sorts by its time."""

    at: float
    name: str
    text: str


class _Wanted(NamedTuple):
    """Which lines to show."""

    trace: str | None
    tenant: str | None

    def takes(self, text: str) -> bool:
        """Tell whether a line is one of them."""
        if self.trace is not None and self.trace not in text:
            return False
        return self.tenant is None or self.tenant in _tenants(text)


def logs(
    service: Annotated[
        str | None, Parameter(help="only of this process, or of the replicas of this service")
    ] = None,
    /,
    *,
    trace: Annotated[str | None, Parameter(help="only lines with this trace id")] = None,
    tenant: Annotated[str | None, Parameter(help="only lines that name this tenant")] = None,
    last: options.Last = None,
    follow: options.Follow = False,
    state: options.State = DEFAULT,
) -> None:
    """Show what the processes of `tenantry up` have logged, in order of time.

    An error's answer names the trace id under which the logs of routers and
    services have more. Following alone begins with the last ten lines. The
    files are in the state folder, under logs/; they stay when the mesh stops.
    """
    if tenant is not None:
        subjects.check_tenant(tenant)
    folder = StateFolder(state)
    if not folder.exists:
        raise SetupError(f"{folder.path} is no state folder", hint="give another with --state DIR")
    wanted = _Wanted(trace, tenant)
    tails = {path: _Tail(path) for path in _files(folder, service)}
    found = heapq.merge(*(tail.all() for tail in tails.values()))
    shown: Iterable[Line] = (line for line in found if wanted.takes(line.text))
    if last is None and follow and trace is None and tenant is None:
        last = _FOLLOWED
    width = 0 if service in {path.stem for path in tails} else max(len(p.stem) for p in tails)
    for line in shown if last is None else deque(shown, maxlen=last):
        _print(line, width)
    while follow:
        time.sleep(_POLL)
        tails |= {path: _Tail(path) for path in _files(folder, service) if path not in tails}
        for line in heapq.merge(*(tail.more() for tail in tails.values())):
            if wanted.takes(line.text):
                _print(line, width)


def _print(line: Line, width: int) -> None:
    output.line(f"{line.name:<{width}} | {line.text}" if width else line.text)


def _files(folder: StateFolder, service: str | None) -> list[Path]:
    """The logs to read. Raises :class:`NotFound` where there is none of this service."""
    files = sorted(folder.logs.glob("*.log"))
    own = re.compile(rf"{re.escape(service or '')}(-\d+)?")
    found = [path for path in files if service is None or own.fullmatch(path.stem)]
    if not found:
        names = ", ".join(path.stem for path in files) or "none"
        raise NotFound(
            f"no log of {service or 'any process'} in {folder.logs}", hint=f"of: {names}"
        )
    return found


class _Tail:
    """The lines of one process: of the file that was full before, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = path.stem
        self._inode = 0
        self._read = 0
        self._at = 0.0

    def all(self) -> Iterator[Line]:
        """All lines that there are, the oldest first."""
        with contextlib.suppress(FileNotFoundError):
            yield from self._lines(self._path.with_name(f"{self._path.name}.1"), 0)
        yield from self.more()

    def more(self) -> Iterator[Line]:
        """The lines that came since the last time."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return  # it was full a moment ago: the next line makes a new one
        if inode != self._inode:
            if self._inode:
                yield from self._lines(self._path.with_name(f"{self._path.name}.1"), self._read)
            self._inode, self._read = inode, 0
        yield from self._lines(self._path, self._read)

    def _lines(self, path: Path, start: int) -> Iterator[Line]:
        """The whole lines from an offset on. One without a time belongs to the line before it."""
        with path.open("rb") as file:
            file.seek(start)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                start += len(raw)
                if path == self._path:
                    self._read = start
                text = raw.decode(errors="replace").rstrip()
                self._at = _time(text) or self._at
                yield Line(self._at, self._name, text)


def _time(text: str) -> float | None:
    """When a line was logged, seconds since the epoch."""
    # JSON has its time at the end, and may quote others before it.
    found = list(_AT.finditer(text)) if text.startswith("{") else [_AT.search(text[:80])]
    if not found or (match := found[-1]) is None:
        return None
    year, month, day, clock, utc = match.groups()
    with contextlib.suppress(ValueError):
        at = dt.datetime.fromisoformat(f"{year}-{month}-{day}T{clock}")
        return at.replace(tzinfo=dt.UTC if utc else None).timestamp()
    return None


def _tenants(text: str) -> list[str]:
    """The tenants that a line names."""
    with contextlib.suppress(msgspec.MsgspecError):
        line = _json.decode(text)
        return [str(line[key]) for key in ("tenant", "victim") if key in line]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.findall(r"\b(?:tenant|victim)='?([a-z0-9-]+)", plain)
