"""Replicas of the bucket that lag behind, as an instance gets to see them."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.bus import Bucket
from tenantry.bus.kv import Record


class Lag:
    """Answers reads of a key by what it held before, so many times; all others are current."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._old: dict[str, list[Record | None]] = {}
        self.reads: list[str] = []
        """The keys that were read."""
        read = Bucket.read

        async def lags(bucket: Bucket[Any], key: str) -> Record | None:
            self.reads.append(key)
            old = self._old.get(key)
            return old.pop() if old else await read(bucket, key)

        monkeypatch.setattr(Bucket, "read", lags)

    def serve(self, key: str, old: Record | None, times: int = 1) -> None:
        """Answer the next reads of a key by `old`."""
        self._old[key] = [old] * times

    def left(self, key: str) -> int:
        """How many old answers nobody has asked for yet."""
        return len(self._old.get(key, ()))
