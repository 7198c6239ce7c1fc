"""Requests under way: who waits for which answer, on the one inbox of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenantry.bus.message import Message
from tenantry.errors import NotAllowed, Rejection, Unavailable

_POLL = 0.1

Settle = Callable[[Message | Rejection], None]


class Calls:
    """Each call has a token, the last one of its reply subject."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Settle]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, subject: str, settle: Settle) -> str:
        """Wait for answers to a call to `subject`; returns its token."""
        self._count += 1
        token = str(self._count)
        self._open[token] = (subject, settle)
        return token

    async def idle(self) -> None:
        """Return when nobody waits any more who waits now."""
        now = set(self._open)
        while now & self._open.keys():  # noqa: ASYNC110  (rare, and each has its own timeout)
            await asyncio.sleep(_POLL)

    def drop(self, token: str) -> None:
        """Nobody waits any more."""
        self._open.pop(token, None)

    def answered(self, message: Message) -> None:
        """Pass an answer on; NATS's own 503 means that nobody listens."""
        entry = self._open.get(message.subject.rpartition(".")[2])
        if entry is None:
            return
        subject, settle = entry
        headers = message.headers
        if headers and not message.data and headers.get("Status") == "503":
            settle(Unavailable(f"nobody serves {subject} now"))
        else:
            settle(message)

    def denied(self, what: str, to: str) -> None:
        """NATS does not allow it; nats-py tells the subject in lower case."""
        for subject, settle in list(self._open.values()):
            if subject.lower() == to.lower():
                settle(NotAllowed(f"the credentials do not allow {what} to {subject}"))

    def fail(self, rejection: Rejection) -> None:
        """End all of them."""
        for _, settle in list(self._open.values()):
            settle(rejection)
