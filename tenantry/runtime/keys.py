"""The key ring, kept current from the KV bucket `keys`."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from tenantry.bus import Bucket, Bus, Table
from tenantry.context.token import KeyRing, Minter
from tenantry.errors import Conflict, JetStreamError, Rejection
from tenantry.messages import VerifyKey

BUCKET = "keys"

log = structlog.get_logger("tenantry.keys")


class KeyTable:
    """Watches the verify keys of tenant contexts."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.ring = KeyRing()
        self._table = Table(Bucket(bus, BUCKET, VerifyKey), changed=self._changed)

    async def start(self) -> None:
        """Load the keys and follow their changes."""
        await self._table.start()

    async def wait(self) -> None:
        """Like `start`, but patient: the control plane makes the bucket, perhaps later."""
        bucket = Bucket(self._bus, BUCKET, VerifyKey)
        said = False
        while True:
            try:
                await bucket.status()
                return await self.start()
            except (Rejection, JetStreamError) as error:
                if not said:
                    log.warning(
                        "waiting for the control plane: `tenantry run tenants`", why=str(error)
                    )
                said = True
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """Watch no more."""
        await self._table.stop()

    def _changed(self, _name: str, _key: VerifyKey | None) -> None:
        keys = {key.kid: (key.key, key.retired) for key in self._table.rows.values()}
        if bad := self.ring.replace(keys):
            log.error("not a public key", kids=bad)


async def publish_key(bus: Bus, minter: Minter) -> None:
    """Let every worker know the key that this process signs with."""
    key = VerifyKey(kid=minter.kid, key=minter.public_key, created=time.time())
    with contextlib.suppress(Conflict):
        await Bucket(bus, BUCKET, VerifyKey).create(f"context.{minter.kid}", key)
