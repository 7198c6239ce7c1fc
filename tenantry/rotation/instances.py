"""What the running instances say of the keys that they know and use (`$SRV.INFO`)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tenantry.bus import Bus
from tenantry.errors import BadMessage
from tenantry.wire.codec import Decoder

_WAIT = 0.5
_PAUSE = 0.1
_SILENT = 5
"""Rounds without an answer after which an instance is gone."""


class _Info(msgspec.Struct, frozen=True):
    name: str
    id: str
    metadata: dict[str, str] = {}


class Instance(NamedTuple):
    """One service in one process."""

    service: str
    id: str
    about: dict[str, str]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.service}/{self.id}"

    def number(self, what: str) -> int | None:
        """A number that it tells; None where it tells none."""
        text = self.about.get(what, "")
        return int(text) if text.isdecimal() else None


_decode = Decoder(_Info)


class Instances:
    """Asks all that run."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def all(self, service: str = "") -> list[Instance]:
        """Those that answer, of one service or of all."""
        found = []
        for answer in await self._bus.gather(f"$SRV.INFO.{service}".rstrip("."), wait=_WAIT):
            try:
                info = _decode(answer.data)
            except BadMessage:
                continue
            if "tenantry" in info.metadata:
                found.append(Instance(info.name, info.id, info.metadata))
        return sorted(found, key=lambda each: each.name)

    async def behind(
        self, reached: Callable[[Instance], bool], *, within: float, service: str = ""
    ) -> list[Instance]:
        """Wait until all have `reached` something; returns those that have not after `within` s.

        One that is busy may not answer at once: all are asked at least twice, and who was heard
        once counts until it was silent for a while.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        heard: dict[str, tuple[Instance, int]] = {}
        for number in itertools.count():
            for each in await self.all(service):
                heard[each.name] = each, number
            late = [
                each
                for each, last in heard.values()
                if number - last < _SILENT and not reached(each)
            ]
            if number and (not late or loop.time() > end):
                return late
            await asyncio.sleep(_PAUSE)
        raise AssertionError("unreachable")
