"""The verify keys that the operator's directory holds: published, and put right after tampering."""

from __future__ import annotations

import asyncio

import structlog

from tenantry import tasks
from tenantry.bus import Bucket, Bus
from tenantry.context.verify_keys import BUCKET, key_of
from tenantry.errors import JetStreamError, Rejection, TenantryError
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome, certificate
from tenantry.runtime import KeyTable

_RETRY = 1.0

log = structlog.get_logger("tenantry.tenants")


class KeyKeeper:
    """Holds the bucket `keys` to the certified records in the operator's directory.

    A worker that runs keeps what it has verified. One that starts has only the bucket: there an
    older record, or none, must not lie for longer than it takes to write it anew.
    """

    def __init__(self, bus: Bus, home: OperatorHome, keys: KeyTable) -> None:
        self._bucket = Bucket(bus, BUCKET, VerifyKey)
        self._home = home
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        keys.on_attack(lambda _kid: self._wake.set())

    async def start(self) -> None:
        """Publish what is missing, then watch over it."""
        await self._publish()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Watch no more."""
        await tasks.end(self._task)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._publish()
            except (TenantryError, Rejection, JetStreamError) as error:
                log.error("verify keys not published", why=str(error))
                await asyncio.sleep(_RETRY)
                self._wake.set()

    async def _publish(self) -> None:
        for key in self._home.verify_keys():

            def newest(there: VerifyKey | None, key: VerifyKey = key) -> VerifyKey:
                return there if there is not None and self._serial(there) > key.serial else key

            await self._bucket.change(key_of(key.kid), newest)

    def _serial(self, record: VerifyKey) -> int:
        """Of what is certified; whatever else lies there counts for nothing."""
        try:
            return certificate.certified(record, self._home.context_root).serial
        except TenantryError:
            return 0
