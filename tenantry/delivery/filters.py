"""The filter by which a service reads the journal, and the names of the actions that it handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tenantry import subjects
from tenantry.messages.checkpoints import Checkpoint
from tenantry.service.service import Service
from tenantry.wire import headers


class Names(NamedTuple):
    """The actions of a service, as its checkpoint knows them too."""

    handled: frozenset[str]
    """Actions that this version handles, as `<service>.<action>`."""
    known: frozenset[str]
    """Actions that this version handles, or another one does or did."""
    unordered: Mapping[str, int]
    """The unordered actions of this version; each is unordered after this sequence."""
    newer: bool
    """True if a newer version has owned the partition."""

    def is_unordered(self, name: str, seq: int) -> bool:
        """Tell whether no order binds this message."""
        return name in self.unordered and seq > self.unordered[name]


def names_of(service: Service, found: Checkpoint) -> Names:
    """Join the actions of a service with those that the checkpoint remembers.

    An own command that was once handled stays known: what the journal still has of it becomes a
    dead letter and is not passed over. An older version than the one that was there last only adds:
    what it does not know waits for the newer one.
    """
    handled = frozenset(service.durable)
    newer = subjects.version_key(found.version) > subjects.version_key(service.version)
    own = f"{service.name}."
    before = {name for name in found.names if newer or name.startswith(own)}
    unordered = {
        name: found.unordered.get(name, found.read_to)
        for name, handler in service.durable.items()
        if not handler.ordered
    }
    return Names(handled, handled | before, unordered, newer)


def claimed(
    service: Service, found: Checkpoint, names: Names, *, owner: str, end: int = 0, since: float = 0
) -> Checkpoint:
    """The checkpoint with which an owner takes over from the one that it has found.

    Where the former owner has not released it, it may have begun messages up to `end`, `since` some
    time (seconds since the epoch).
    """
    if found.owner:
        since = min(since, found.since) if found.unclean_to else since
        found = msgspec.structs.replace(found, unclean_to=end, since=since)
    return msgspec.structs.replace(
        found,
        epoch=found.epoch + 1,
        owner=owner,
        version=found.version if names.newer else service.version,
        names=tuple(sorted(names.known)),
        unordered=dict(names.unordered),
    )


def subject_of(names: frozenset[str], partition: int, tenant: str = "*") -> str:
    """One filter for all that a service handles: several are dear to nats-server.

    It lets through more than is handled where the names have no more in common.
    """
    services = {name.partition(".")[0] for name in names}
    action = next(iter(names)) if len(names) == 1 else "*.*"
    if len(names) > 1 and len(services) == 1:
        action = f"{services.pop()}.*"
    return f"journal.{partition}.{tenant}.{action}"


def is_for(service: str, fields: Mapping[str, str] | None, *, replay: bool = False) -> bool:
    """Tell whether a message is for this service: some are for one alone, or only history."""
    only = fields.get(headers.ONLY) if fields else None
    if only is None:
        return True
    if replay:
        only = only.removeprefix(headers.HISTORY)
    return only in (("", service) if replay else (service,))
