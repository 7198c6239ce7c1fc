"""The verify keys of tenant contexts, as a process knows them: from the bucket, but only certified.

What was known stays: a record that is deleted, that has no certificate of the root or that is older
than the one known changes nothing, and is logged as what it is, an attack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from tenantry import tasks
from tenantry.bus import Bucket, Bus, Table
from tenantry.context.token import KeyRing, Trusted
from tenantry.errors import JetStreamError, Rejection, SetupError
from tenantry.messages import VerifyKey
from tenantry.operator import certificate
from tenantry.operator import creds as creds_files

BUCKET = "keys"
_PREFIX = "context."

log = structlog.get_logger("tenantry.keys")


def key_of(kid: str) -> str:
    """Where the bucket has the record of a key id."""
    return f"{_PREFIX}{kid}"


def root_of(creds: Path | None) -> str:
    """The root that these credentials name. Raises :class:`SetupError` where they name none."""
    text = creds_files.load(creds) if creds is not None else ""
    root = creds_files.root_of(text) if text else None
    if root is None:
        raise SetupError(
            f"the credentials {creds or '(none)'} do not say which root signs the context keys",
            hint="issue them anew with `tenantry nats creds ROLE`, after `tenantry keys upgrade`",
        )
    return root


class VerifyKeys:
    """Watches the bucket `keys`; `ring` verifies with what is certified."""

    def __init__(self, bus: Bus, root: str | None = None) -> None:
        self.ring = KeyRing()
        self.known: dict[str, VerifyKey] = {}
        """By key id, all that were ever certified, the revoked ones too."""
        self._root = root_of(bus.creds) if root is None else root
        self._table = Table(Bucket(bus, BUCKET, VerifyKey), changed=self._changed)
        self._listeners: list[Callable[[], None]] = []
        self._stale: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None
        self._bus = bus
        self._on_attack: Callable[[str], None] = lambda _kid: None

    @property
    def revision(self) -> int:
        """Up to where the bucket is known."""
        return self._table.revision

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this at each change of `known`."""
        self._listeners.append(listener)

    def on_attack(self, listener: Callable[[str], None]) -> None:
        """Call this with the key id of each record that is refused, or deleted."""
        self._on_attack = listener

    async def start(self) -> None:
        """Load the keys and follow their changes."""
        await self._table.start()
        self._forget = self._bus.on_reconnect(self._missed)

    async def stop(self) -> None:
        """Watch no more."""
        self._forget()
        await tasks.end(self._stale)
        await self._table.stop()

    async def caught_up(self) -> bool:
        """Return once it is known what changed while the connection was lost; False if it was.

        A message may be here sooner than the key that its context is signed with.
        """
        if self._stale is None:
            return False
        await asyncio.wait({self._stale})
        return True

    async def reach(self, revision: int) -> None:
        """Return when this revision of the bucket is known."""
        await self._table.reach(revision)

    def _missed(self) -> None:
        if self._stale is not None:
            self._stale.cancel()
        self._stale = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            await self._table.sync()
        except (TimeoutError, Rejection, JetStreamError) as error:
            log.warning("the keys may be behind", why=str(error))
        self._stale = None

    def _changed(self, name: str, record: VerifyKey | None) -> None:
        kid = name.removeprefix(_PREFIX)
        if record is None:
            self._attacked(kid, "a verify key was deleted")
            return
        try:
            key = certificate.certified(record, self._root)
        except SetupError as error:
            self._attacked(kid, error.message)
            return
        former = self.known.get(kid)
        if key.kid != kid or (former is not None and key.serial < former.serial):
            self._attacked(kid, "a certificate that belongs to another record, or is outdated")
            return
        self.known[kid] = key
        if bad := self.ring.replace({kid: _trusted(key) for kid, key in self.known.items()}):
            log.error("not a public key", kids=bad)
        for listener in self._listeners:
            listener()

    def _attacked(self, kid: str, why: str) -> None:
        log.error("verify key refused", kid=kid, why=why)
        self._on_attack(kid)


def _trusted(key: VerifyKey) -> Trusted:
    return Trusted(key.key, key.retired, None if key.revoked is None else key.since)
