"""Which instance reads which partition: the same answer in every instance that knows the others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tenantry.subjects import PARTITIONS, version_key


def assign(instances: Mapping[str, str]) -> dict[int, str]:
    """The owner of each partition, of these instances by version; empty where there are none.

    Rendezvous hashing with a ceiling: nobody gets more than its share, and few partitions move when
    an instance comes or goes. Only the newest version owns partitions: an older one may not know
    all that it would get.
    """
    if not instances:
        return {}
    newest = max(instances.values(), key=version_key)
    able = [name for name, version in instances.items() if version == newest]
    most = -(-PARTITIONS // len(able))
    owned, owner = dict.fromkeys(able, 0), dict[int, str]()
    pairs = ((_weight(name, partition), partition, name) for name in able for partition in _ALL)
    for _, partition, name in sorted(pairs, reverse=True):
        if partition not in owner and owned[name] < most:
            owner[partition] = name
            owned[name] += 1
    return owner


_ALL = range(PARTITIONS)


def _weight(name: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{name}/{partition}".encode(), digest_size=8).digest()
