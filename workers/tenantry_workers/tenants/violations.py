"""Permission violations, from nats-server's log: the only place where it tells of them.

It has no event for them. Names in its log are quoted, so that nobody can write a line of his own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import BinaryIO

import structlog

from tenantry import tasks
from tenantry.bus import Table
from tenantry.messages import Tenant
from tenantry.runtime.audit import Audit
from tenantry_workers.tenants.ledger import CredentialLedger

_POLL = 0.25
_CHUNK = 1 << 20
_MARK = b" Violation - Subject "
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    r"\[\d+\] \S+ \S+ \[ERR\] (?P<host>\S+):\d+ - (?P<connection>[a-z]+:\d+) - "
    rf"{_QUOTED} - \"A[A-Z2-7]{{55}}/(?:[^\"\\]|\\.)*/jwt:(?P<user>U[A-Z2-7]{{55}})\" - "
    rf"(?P<what>Publish|Subscription) Violation - Subject (?P<subject>{_QUOTED})",
    re.ASCII,
)

log = structlog.get_logger("tenantry.tenants")


class Violations:
    """Follows the log of a nats-server on this machine, also when it is rotated."""

    def __init__(
        self, path: Path, audit: Audit, tenants: Table[Tenant], ledger: CredentialLedger
    ) -> None:
        self._path = path
        self._audit = audit
        self._tenants = tenants
        self._ledger = ledger
        self._file: BinaryIO | None = None
        self._rest = b""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is written from now on."""
        with contextlib.suppress(OSError):
            self._file = self._path.open("rb")
            self._file.seek(0, 2)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Read no more."""
        await tasks.end(self._task)
        if self._file is not None:
            self._file.close()

    async def _run(self) -> None:
        while True:
            try:
                more = self._read()
            except OSError as error:
                log.warning("the server's log can't be read", path=str(self._path), why=str(error))
                more = False
            await asyncio.sleep(0 if more else _POLL)

    def _read(self) -> bool:
        """Read a piece; whether there may be more at once."""
        if self._file is None:
            if not self._path.exists():
                return False
            self._file = self._path.open("rb")
        chunk = self._file.read(_CHUNK)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if _MARK in line:
                self.line(line.decode(errors="replace"))
        if len(chunk) == _CHUNK:
            return True
        if not chunk and self._rotated(self._file):
            self._file.close()
            self._file, self._rest = None, b""
            return True
        return False

    def _rotated(self, file: BinaryIO) -> bool:
        """Whether another file has taken its place, or it was cut."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(file.fileno())
        return not os.path.samestat(ours, there) or there.st_size < file.tell()

    def line(self, text: str) -> None:
        """Tell the audit of one line of the log."""
        found = _LINE.match(text)
        if found is None:
            return
        subject = found["subject"][1:-1]
        tenant = self._ledger.owner(found["user"])
        _, _, rest = subject.partition(".")
        other = rest.partition(".")[0]
        self._audit.refused(
            "permission_violation",
            tenant=tenant,
            victim=other if other != tenant and other in self._tenants.rows else "",
            user=found["user"],
            host=found["host"],
            connection=found["connection"],
            subject=subject,
            why=f"{found['what'].lower()} not permitted by nats-server",
        )
