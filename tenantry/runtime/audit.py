"""Refusals that look like attacks, written down: counted by source, never in anyone's way.

A refusal costs a look-up and an addition. What a source has tried is told soon after its first
attempt, and from then on in one event each few seconds that says how often; so a flood is a few
events, and hides nobody else's. Where they can't be written they are counted as lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypedDict, Unpack, get_args

import structlog

from tenantry import metrics, subjects, tasks
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import JetStreamError, Rejection
from tenantry.messages import SecurityEvent, SecurityKind
from tenantry.wire import codec

WINDOW = 5.0
"""A source that goes on is told of once in so many seconds."""
MOST = 1_000
"""Sources that are told apart at most; the others of a kind are one."""
OTHERS = "*"

_KINDS: tuple[SecurityKind, ...] = get_args(SecurityKind)
_SOON = 0.2
_TIMEOUT = 5.0
_LAST = 1.0
_SHOWN = 200

log = structlog.get_logger("tenantry.audit")


class Details(TypedDict, total=False):
    """What is known of one attempt: fields of :class:`SecurityEvent`."""

    tenant: str
    victim: str
    user: str
    claimed: str
    host: str
    connection: str
    subject: str
    why: str


class _Source(NamedTuple):
    """Who tries what. Only what the one who tries can't choose at will."""

    kind: SecurityKind
    tenant: str
    victim: str
    user: str
    host: str


class _Tried:
    __slots__ = ("count", "details", "first", "holds", "last", "next")

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = 0.0
        self.next = 0.0
        """Not told before, by the clock of the loop."""
        self.details: Details = {}
        self.holds: Callable[[], bool] | None = None


class Audit:
    """What one instance of a service has refused."""

    def __init__(self, bus: Bus, service: str, instance: str) -> None:
        self.told: Counter[str] = Counter()
        """Refusals that were written down, by kind."""
        self.lost: Counter[str] = Counter()
        """Those that could not be."""
        self._bus = bus
        self._service = service
        self._instance = instance
        self._sources: dict[_Source, _Tried] = {}
        self._wake = asyncio.Event()
        self._ending = False
        self._task: asyncio.Task[None] | None = None
        self._forget: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Write down what is refused from now on."""
        self._task = asyncio.create_task(self._run())
        if metrics.enabled():
            self._forget = [
                metrics.observe(metrics.SECURITY, lambda: _reasons(self.told + self.lost)),
                metrics.observe(metrics.AUDIT_LOST, lambda: _reasons(self.lost)),
            ]

    async def stop(self) -> None:
        """Write down what is left, within a second, and no more."""
        self._ending = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LAST)
            await tasks.end(self._task)
        for forget in self._forget:
            forget()

    def refused(
        self,
        kind: SecurityKind,
        *,
        holds: Callable[[], bool] | None = None,
        **details: Unpack[Details],
    ) -> None:
        """Count one attempt; never raises and never waits.

        Where a moment later `holds` says no, it was a mistake, not an attempt. In `details` there
        must be nothing secret; a `subject` is cut and made printable here.
        """
        source = _Source(
            kind,
            details.get("tenant", ""),
            details.get("victim", ""),
            details.get("user", ""),
            details.get("host", ""),
        )
        tried = self._sources.get(source) or self._new(source)
        tried.last = time.time()
        tried.count += 1
        if tried.count == 1:
            tried.first, tried.details, tried.holds = tried.last, details, holds
            self._wake.set()

    def _new(self, source: _Source) -> _Tried:
        if len(self._sources) >= MOST:
            source = _Source(source.kind, OTHERS, "", "", "")
        return self._sources.setdefault(source, _Tried())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._ending:
            await self._wake.wait()
            if not self._ending:
                await asyncio.sleep(_SOON)  # what comes together is told together
            self._wake.clear()
            now = loop.time()
            await self._tell([key for key, tried in self._sources.items() if tried.next <= now])
            now = loop.time()
            self._sources = {
                key: tried
                for key, tried in self._sources.items()
                if tried.count or tried.next > now
            }
            if self._sources:  # to tell of them again, or to forget them
                loop.call_at(min(each.next for each in self._sources.values()), self._wake.set)
        await self._tell(list(self._sources))

    async def _tell(self, sources: list[_Source]) -> None:
        """Write down what these have tried since the last time."""
        events: list[tuple[SecurityEvent, asyncio.Task[None]]] = []
        for source in sources:
            tried = self._sources[source]
            if not tried.count:
                continue
            tried.next = asyncio.get_running_loop().time() + WINDOW
            event = self._event(source, tried)
            holds, tried.count, tried.holds = tried.holds, 0, None
            if holds is None or holds():
                log.warning("looks like an attack", **_words(event))
                events.append((event, asyncio.create_task(self._store(event))))
        for event, storing in events:
            try:
                await storing
            except (Rejection, JetStreamError) as error:
                self.lost[event.kind] += event.count
                log.warning("not written down", kind=event.kind, count=event.count, why=str(error))
            else:
                self.told[event.kind] += event.count

    async def _store(self, event: SecurityEvent) -> None:
        """Raises what NATS says."""
        subject = subjects.audit(event.tenant, event.kind)
        js.stored(await self._bus.call(subject, codec.encode(event), timeout=_TIMEOUT))

    def _event(self, source: _Source, tried: _Tried) -> SecurityEvent:
        details: Details = {**tried.details, "subject": shown(tried.details.get("subject", ""))}
        if source.tenant == OTHERS:
            details |= {"tenant": OTHERS, "victim": "", "user": "", "host": ""}
        return SecurityEvent(
            kind=source.kind,
            count=tried.count,
            first=round(tried.first, 3),
            last=round(tried.last, 3),
            service=self._service,
            instance=self._instance,
            **details,
        )


def shown(text: str) -> str:
    """A subject as it may be shown."""
    text = text[:_SHOWN]
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def _words(event: SecurityEvent) -> dict[str, object]:
    names = ("kind", "count", "tenant", "victim", "user", "host", "subject", "why")
    return {name: value for name in names if (value := getattr(event, name))}


def _reasons(counts: Counter[str]) -> list[tuple[float, metrics.Attributes]]:
    # Told from the start: an alert sees a growth, and not what is there at first sight.
    return [(counts[kind], {metrics.REASON: kind}) for kind in _KINDS]
