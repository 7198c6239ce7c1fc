"""Account JWTs on the running server, changed together with the operator's directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tenantry.bus import Bus
from tenantry.errors import Unavailable
from tenantry.operator import OperatorHome, generations
from tenantry.operator.generations import Draft

_PUSH = "$SYS.REQ.CLAIMS.UPDATE"


class Accounts:
    """Puts drafts into force, over a connection with the role `sys`; without one in files only."""

    def __init__(self, home: OperatorHome, system: Bus | None) -> None:
        self._home = home
        self._system = system

    async def apply(self, draft: Draft) -> list[Path]:
        """Push what changes of SYS and MESH, then write the files: both or nothing.

        EDGE is pushed by the tenants worker, once it sees the files. Returns the credentials files
        that were issued anew. Raises SetupError, and what the bus says.
        """
        generations.keep_keys(self._home, draft)
        try:
            for name, jwt in draft.accounts.items():
                if name != "edge" and self._system is not None:
                    await self._push(self._system, name, jwt)
        except BaseException:
            generations.drop_keys(self._home, draft)
            raise
        return generations.commit(self._home, draft)

    async def _push(self, system: Bus, name: str, jwt: str) -> None:
        self._home.validate(name, jwt)
        answer = await system.call(_PUSH, jwt.encode())
        result = msgspec.json.decode(answer.data)
        if "error" in result:
            raise Unavailable(f"nats-server refuses the account {name.upper()}: {result['error']}")
