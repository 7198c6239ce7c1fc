"""The keys that contexts are verified with (KV bucket `keys`), and the one they are signed with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Unpack

import structlog

from tenantry.bus import Bucket, Bus
from tenantry.context.token import Minter, Options
from tenantry.context.verify_keys import BUCKET, VerifyKeys
from tenantry.errors import JetStreamError, Rejection, SetupError, Unavailable
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome

log = structlog.get_logger("tenantry.keys")


class KeyTable(VerifyKeys):
    """The verify keys of a worker, which may start before the control plane."""

    def __init__(self, bus: Bus, root: str | None = None) -> None:
        super().__init__(bus, root)
        self.started = False

    async def start(self) -> None:
        """Load the keys and follow their changes."""
        await super().start()
        self.started = True

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

    def about(self) -> dict[str, str]:
        """What an instance tells of it in `$SRV.INFO`."""
        return {"keys": str(self.revision)} if self.started else {}


class ContextSigner:
    """Signs with the newest key that is active and whose seed the operator's directory has.

    A key that appears later, or is revoked, is seen to at once, without a restart. It mints as
    :class:`~tenantry.context.token.Minter` does, with its key id of the moment.
    """

    def __init__(self, home: OperatorHome, keys: KeyTable) -> None:
        self._home = home
        self._keys = keys
        self._minter: Minter | None = None
        self._missing: set[str] = set()
        self._ready = asyncio.Event()
        keys.listen(self._choose)

    @property
    def kid(self) -> str:
        """The id of the key of now; empty where there is none."""
        return self._minter.kid if self._minter is not None else ""

    async def ready(self) -> None:
        """Return when there is a key to sign with."""
        self._choose()
        if self._minter is None:
            log.warning("waiting for a context key that is published, and whose seed is here")
        await self._ready.wait()

    def about(self) -> dict[str, str]:
        """What an instance tells of it in `$SRV.INFO`."""
        return {"context_key": self.kid}

    def mint(self, tenant: str, plan: str, principal: str, **options: Unpack[Options]) -> str:
        """Sign a context. Raises :class:`Unavailable` where there is no key to sign with."""
        if self._minter is None:
            raise Unavailable("there is no key to sign contexts with", retry_after=1.0)
        return self._minter.mint(tenant, plan, principal, **options)

    def _choose(self) -> None:
        for key in in_force(self._keys.known.values()):
            if self._minter is not None and self._minter.kid == key.kid:
                return
            try:
                seed = self._home.context_seed(key.kid)
            except SetupError as error:
                self._say_missing(key.kid, error)
                continue
            self._minter = Minter(key.kid, seed)
            self._ready.set()
            log.info("signing contexts", kid=key.kid)
            return
        if self._minter is not None:
            log.error("no context key to sign with: every message is refused")
            self._minter = None

    def _say_missing(self, kid: str, error: SetupError) -> None:
        if kid not in self._missing:
            self._missing.add(kid)
            log.warning(
                "a context key without its seed: signing with an older one",
                kid=kid,
                why=error.message,
                hint="bring the seed to this machine's operator directory",
            )


def in_force(keys: Iterable[VerifyKey]) -> list[VerifyKey]:
    """Those that contexts may be signed with now, the newest first."""
    usable = [key for key in keys if key.active and key.retired is None and key.revoked is None]
    return sorted(usable, key=lambda key: (key.active or 0.0, key.created), reverse=True)
