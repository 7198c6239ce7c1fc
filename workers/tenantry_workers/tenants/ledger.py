"""All tenants' credentials, by what the account EDGE has to say of them.

It is kept current record by record, so that no change costs more the more tenants there are.
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Container
from typing import NamedTuple

from tenantry.context.token import SKEW
from tenantry.messages import Tenant

GENERATION = 1_000
"""Revisions of tenants' records for which credentials of a plan share a signing key.

Fewer mean more keys in the account, more mean more revocations that outlive their use.
"""


class Place(NamedTuple):
    """The signer of a credential: a tenants' signing key, and the scope derived from it."""

    signer: str
    scope: str


class _Parts(NamedTuple):
    """The part of the ledger that is one tenant's."""

    keys: set[str]
    live: list[Place]
    revoked: dict[str, Place]
    is_deleted: bool


class Revoked(NamedTuple):
    """The revoked keys that would be good otherwise, each with the second up to which it counts."""

    kept: dict[str, int]
    """Of tenants that are there."""
    gone: dict[str, int]
    """Of deleted tenants."""


def is_closed(scope: str, revision: int) -> bool:
    """Tell whether no credential of a scope can be issued any more, at a revision of the records.

    A generation is closed one later, for a replica that issued in it just as it ended.
    """
    _, mark, number = scope.partition("#")
    return bool(mark) and int(number) < revision // GENERATION - 1


class CredentialLedger:
    """All tenants' credentials: whose they are, and which are in force or revoked."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """The ids of all tenants, deleted ones too, in order."""
        self.overridden: dict[str, Tenant] = {}
        """The tenants that have limits of their own."""
        self.live: Counter[Place] = Counter()
        """Counts of the credentials in force, by what has signed them."""
        self._owners: dict[str, str] = {}
        self._revoked: dict[bool, dict[Place, dict[str, int]]] = {False: {}, True: {}}
        """By whether the tenant is deleted."""
        self._parts: dict[str, _Parts] = {}
        self._expiries: list[tuple[float, str]] = []
        self._expiring: dict[str, Tenant] = {}

    def owner(self, public_key: str) -> str:
        """The tenant whose record names a key; empty for nobody."""
        return self._owners.get(public_key, "")

    def note(self, name: str, tenant: Tenant | None) -> None:
        """Take over a tenant's record; None: there is none any more."""
        before = self._parts.pop(name, None)
        if before is not None:
            self._forget(name, before)
        self.overridden.pop(name, None)
        self._expiring.pop(name, None)
        if tenant is not None:
            if before is None:
                insort(self.names, name)
            if tenant.override is not None:
                self.overridden[name] = tenant
            self._parts[name] = self._added(name, tenant, time.time())
        elif before is not None:
            del self.names[bisect_left(self.names, name)]

    def _added(self, name: str, tenant: Tenant, now: float) -> _Parts:
        is_deleted = tenant.state == "deleted"
        parts = _Parts(set(), [], {}, is_deleted)
        for each in tenant.credentials:
            parts.keys.add(each.public_key)
            self._owners.setdefault(each.public_key, name)
            if each.expires is not None:
                if each.expires <= now:
                    continue
                heapq.heappush(self._expiries, (each.expires, name))
                self._expiring[name] = tenant
            place = Place(each.signer, each.scope)
            if each.revoked is None:
                parts.live.append(place)
            else:
                parts.revoked[each.public_key] = place
                there = self._revoked[is_deleted].setdefault(place, {})
                # The server compares it with when the JWT was made, perhaps by a replica whose
                # clock is ahead. No key has credentials again before its revocation goes.
                latest = max(each.revoked, each.issued) + SKEW
                there[each.public_key] = int(latest) + 1
        self.live.update(parts.live)
        return parts

    def _forget(self, name: str, parts: _Parts) -> None:
        for key in parts.keys:
            if self._owners.get(key) == name:
                del self._owners[key]
        for place in parts.live:
            self.live[place] -= 1
            if not self.live[place]:
                del self.live[place]
        for key, place in parts.revoked.items():
            places = self._revoked[parts.is_deleted]
            del places[place][key]
            if not places[place]:
                del places[place]

    def expire(self, now: float) -> None:
        """Take note of the credentials that have expired until `now`."""
        while self._expiries and self._expiries[0][0] <= now:
            _, name = heapq.heappop(self._expiries)
            if (tenant := self._expiring.get(name)) is not None:
                self.note(name, tenant)

    def revoked(self, scopes: Container[str], signers: Container[str]) -> Revoked:
        """The revoked keys of the scopes and signing keys that the account has.

        All other credentials are void, since nothing in the account has signed them.
        """
        found = Revoked({}, {})
        for is_deleted, into in ((False, found.kept), (True, found.gone)):
            for place, keys in self._revoked[is_deleted].items():
                if place.signer in signers and (not place.scope or place.scope in scopes):
                    into.update(keys)
        return found
