"""The keys that sign tenant contexts: the next one takes over, or one is taken away.

Made known first, used second, retired third: each step waits until all that run have followed, so
that no worker ever meets a context whose key it does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tenantry.bus import Bucket, Bus
from tenantry.context.token import SKEW
from tenantry.context.verify_keys import BUCKET, key_of
from tenantry.errors import NotFound, SetupError, Unavailable
from tenantry.messages import VerifyKey
from tenantry.operator import OperatorHome
from tenantry.rotation.instances import Instance, Instances

_QUICK = 2.0
"""What a revocation waits for workers that do not answer, seconds: it is more urgent than they."""


class Contexts:
    """Over a connection with the role `control`; the directory has the root's seed."""

    def __init__(
        self, home: OperatorHome, bus: Bus, *, tell: Callable[[str], None], patience: float = 30.0
    ) -> None:
        self._home = home
        self._bus = bus
        self._bucket = Bucket(bus, BUCKET, VerifyKey)
        self._instances = Instances(bus)
        self._tell = tell
        self._patience = patience

    async def rotate(self) -> VerifyKey:
        """Have another key sign from now on; one that was begun before is finished.

        Raises :class:`Unavailable` where an instance does not follow: then nothing is lost, and it
        can be repeated. Raises SetupError without the root's seed.
        """
        key = self._begun() or self._record(self._home.add_context_key())
        key = await self._activate(key, self._patience)
        await self._retire(key)
        return key

    async def revoke(self, kid: str, *, since: float | None = None) -> VerifyKey:
        """Take a key away: no context by it counts any more, also on what waits in the journal.

        `since`, the time when it was stolen, spares what was stored before. Where it is the key
        that signs now, another takes over first. Raises NotFound, SetupError.
        """
        key = self._record(kid)
        if key.revoked is not None and since is not None and since > key.since:
            raise SetupError(f"the key {kid} is revoked since an earlier time already")
        if not [each for each in self._signing() if each.kid != kid]:
            other = self._begun() or self._record(self._home.add_context_key())
            if other.kid == kid:
                other = self._record(self._home.add_context_key())
            await self._activate(other, _QUICK, strict=False)
        revoked = key.revoked if key.revoked is not None else round(time.time(), 3)
        key = await self._publish(key, revoked=revoked, since=since or 0.0)
        self._tell(f"revoked {kid}")
        late = await self._late(await self._revision(kid), _QUICK)
        if late:
            self._tell(f"not heard yet by {_names(late)}: end what does not answer")
        return key

    # --- the steps -----------------------------------------------------------------------------

    async def _activate(self, key: VerifyKey, patience: float, *, strict: bool = True) -> VerifyKey:
        if key.active is None:
            await self._publish(key)
            self._tell(f"made known {key.kid}")
            late = await self._late(await self._revision(key.kid), patience)
            if late and strict:
                raise Unavailable(
                    f"{_names(late)} do not know the new key {key.kid} yet: nothing has changed",
                    retry_after=5.0,
                )
            key = await self._publish(key, active=round(time.time(), 3))
        late = await self._instances.behind(
            lambda each: each.about.get("context_key", key.kid) == key.kid, within=patience
        )
        if late and strict:
            raise Unavailable(
                f"{_names(late)} still sign with an older key: bring context/{key.kid}.seed "
                "to their operator's directory, restart them, then repeat this",
                retry_after=5.0,
            )
        self._tell(f"signing with {key.kid}")
        return key

    async def _retire(self, newest: VerifyKey) -> None:
        """What was signed before stays good, also by a clock that is ahead of ours."""
        for key in self._signing():
            if key.kid != newest.kid:
                await self._publish(key, retired=round(time.time() + SKEW, 3))
                self._tell(f"retired {key.kid}")

    async def _publish(self, key: VerifyKey, **changes: float) -> VerifyKey:
        if changes:
            key = msgspec.structs.replace(key, serial=key.serial + 1, **changes)
            key = self._home.certify(key)
        await self._bucket.put(key_of(key.kid), key)
        return key

    async def _late(self, revision: int, patience: float) -> list[Instance]:
        def knows(each: Instance) -> bool:
            known = each.number("keys")
            return known is None or known >= revision

        return await self._instances.behind(knows, within=patience)

    async def _revision(self, kid: str) -> int:
        entry = await self._bucket.get(key_of(kid))
        return entry.revision if entry is not None else 0

    # --- what the directory has ----------------------------------------------------------------

    def _begun(self) -> VerifyKey | None:
        """A rotation that was not finished: one that waits, or several that sign."""
        records = self._home.verify_keys()
        waiting = [key for key in records if key.active is None and key.revoked is None]
        if waiting:
            return waiting[-1]
        signing = self._signing()
        return signing[-1] if len(signing) > 1 else None

    def _signing(self) -> list[VerifyKey]:
        found = [
            key
            for key in self._home.verify_keys()
            if key.active is not None and key.retired is None and key.revoked is None
        ]
        return sorted(found, key=lambda key: key.active or 0.0)

    def _record(self, kid: str) -> VerifyKey:
        for key in self._home.verify_keys():
            if key.kid == kid:
                return key
        raise NotFound(f"no context key {kid!r}", hint="see `tenantry keys list`")


def _names(instances: list[Instance]) -> str:
    return ", ".join(each.name for each in instances)
