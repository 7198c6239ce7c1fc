"""The context of one message inside a handler: whose it is, and what may be done in its name.

Everything a handler sends through its context goes to the context's own tenant: there is no
parameter to name another. A context ends with its message; used later, it raises.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import structlog

from tenantry import clock, subjects
from tenantry.bus.kv import Record
from tenantry.context import schedule
from tenantry.context.claims import Claims
from tenantry.context.event import Event
from tenantry.context.fence import Fence, free
from tenantry.context.schedule import Moment
from tenantry.context.state import State, Write
from tenantry.errors import (
    DeclarationError,
    Hopeless,
    TenantryError,
    TooMuchEmitted,
    from_inside,
)
from tenantry.messages import Kind
from tenantry.subjects import Address
from tenantry.wire import codec, headers
from tenantry.wire.trace import Trace

T = TypeVar("T")

MAX_MESSAGES = 1000
"""How many messages one message may emit and send."""

MAX_BYTES = 8 * 1024 * 1024
"""How many bytes their bodies may have in all."""

_ANEW = 1.0
"""A command that is due in so many seconds or more begins its hop count anew: what is done now and
again is no circle."""

_current: ContextVar[Context] = ContextVar("tenantry.context")


class ContextClosed(TenantryError):
    """A context was used after its message had been handled."""

    code = "context_closed"


class ForeignContext(TenantryError):
    """A context was used while another message was being handled."""

    code = "foreign_context"


class Staged(NamedTuple):
    """One message that a handler wants to leave behind it, published once it has succeeded."""

    subject: str
    body: bytes
    msg_id: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    """What it has more than every message has."""
    timer: Staged | None = None
    """Of a schedule: what tells nats-server, published when the schedule itself is stored."""


class Mesh(Protocol):
    """What a context needs of the worker it runs in."""

    async def request(
        self, context: Context, to: Address, body: bytes, timeout: float | None
    ) -> bytes:
        """Ask another service in the name of this context."""
        ...

    def state(self, context: Context) -> State:
        """The state of the context's service for its tenant."""
        ...

    def check(self, name: str, kind: Kind) -> None:
        """Raise DeclarationError unless `<service>.<action>` is known to be declared as `kind`."""
        ...

    def crossed(self, context: Context, other: Context) -> None:
        """The context `other` is current, and its handler has used the ended `context`."""
        ...


class Context:
    """Whose message this is, and the way to act in its name.

    `tenant`, `plan`, `principal`, `roles`, `service` and `action` can't be set. Other attributes
    are read-only by convention: `request_id` (the trace id, 32 hex digits), `message_id` (stable
    over redeliveries), `attempt` (1 for the first delivery), `deadline` (seconds since the epoch,
    or None), `log` (bound to tenant and trace), `resources` (what the service's lifespan yielded),
    `seq` (the message's sequence in the journal, 0 for a request), `replaying` (whether a replay
    has it handled again: then what it emits, sends and asks for is held back, see :meth:`emit`).
    """

    __slots__ = (
        "_address",
        "_bytes",
        "_claims",
        "_closed",
        "_count",
        "_fence",
        "_log",
        "_mesh",
        "_staged",
        "_state",
        "_token",
        "attempt",
        "deadline",
        "headers",
        "message_id",
        "resources",
        "seq",
        "trace",
    )

    def __init__(
        self,
        mesh: Mesh,
        claims: Claims,
        token: str,
        address: Address,
        trace: Trace,
        *,
        message_id: str,
        attempt: int = 1,
        deadline: float | None = None,
        headers: Mapping[str, str] | None = None,
        resources: Any = None,
        seq: int = 0,
        fence: Fence | None = None,
    ) -> None:
        self._mesh = mesh
        self._state: State | None = None
        self._fence = fence or free()
        self._staged: list[Staged] = []
        self._closed = False
        self._count = 0
        self._bytes = 0
        self._claims = claims
        self._token = token
        self._address = address
        self.trace = trace
        self.message_id = message_id
        self.attempt = attempt
        self.deadline = deadline
        self.headers = headers or {}
        self.resources = resources
        self.seq = seq
        self._log: Any = None

    @property
    def claims(self) -> Claims:
        """What the message's signed context says."""
        return self._claims

    @property
    def token(self) -> str:
        """The signed context itself."""
        return self._token

    @property
    def fence(self) -> Fence:
        """Says whether what the handler does may still count."""
        return self._fence

    @property
    def tenant(self) -> str:
        """Whose message this is."""
        return self._claims.tenant

    @property
    def plan(self) -> str:
        """The tenant's plan when the context was signed."""
        return self._claims.plan

    @property
    def principal(self) -> str:
        """In whose name the message was sent."""
        return self._claims.principal

    @property
    def roles(self) -> tuple[str, ...]:
        """The principal's roles."""
        return self._claims.roles

    @property
    def service(self) -> str:
        """The service that handles the message."""
        return self._address.service

    @property
    def action(self) -> str:
        """The action that it is."""
        return self._address.action

    @property
    def request_id(self) -> str:
        """The trace id: what errors and logs show, 32 hex digits."""
        return self.trace.trace_id

    @property
    def log(self) -> Any:
        """A structlog logger bound to tenant, action and trace; made when first used."""
        if self._log is None:
            self._log = structlog.get_logger(
                f"service.{self.service}",
                tenant=self.tenant,
                trace_id=self.trace.trace_id,
                action=f"{self.service}.{self.action}",
            )
        return self._log

    @property
    def remaining(self) -> float | None:
        """Seconds until the asker stops waiting, or None where nobody waits."""
        return None if self.deadline is None else self.deadline - time.time()

    @property
    def replaying(self) -> bool:
        """Whether the message has been handled before and a replay has it handled again."""
        return self._fence.replaying

    @property
    def state(self) -> State:
        """This service's own state for this tenant; no other tenant's can be named."""
        self._check()
        if self._state is None:
            self._state = self._mesh.state(self)
        return self._state

    def emit(self, event: Event[T], body: T, *, on_replay: bool = False) -> None:
        """Record a fact; it is published when the handler has succeeded.

        Its id derives from the message's own, so a redelivery emits the same id and the journal
        drops the copy. A replay publishes it only with `on_replay`: the journal has it already.
        Raises :class:`~tenantry.errors.TooMuchEmitted` beyond 1,000 messages or 8 MiB, and
        ValueError for NaN and infinity in the body.
        """
        self._check()
        if not isinstance(event, Event):
            raise DeclarationError(
                f"{self.service} can't emit {event!r:.80}: it is no event",
                hint="emit what `service.event(…)` has returned",
            )
        if event.service != self.service:
            raise DeclarationError(f"{self.service} can't emit {event.service}.{event.name}")
        if not isinstance(body, codec.classes(event.type)):
            raise TypeError(f"{event.name} takes {event.type}, not {type(body).__name__}")
        to = Address(self.tenant, self.service, event.name)
        self._stage(self._message(to, body), on_replay)

    @overload
    def send(self, command: str, body: Any, *, on_replay: bool = ...) -> None: ...

    @overload
    def send(self, command: str, body: Any, *, after: float, on_replay: bool = ...) -> str: ...

    @overload
    def send(self, command: str, body: Any, *, at: Moment, on_replay: bool = ...) -> str: ...

    def send(
        self,
        command: object,
        body: Any,
        *,
        after: float | None = None,
        at: Moment | None = None,
        on_replay: bool = False,
    ) -> str | None:
        """Send a command (`<service>.<action>`), published when the handler has succeeded.

        With `after` (seconds from now) or `at` (seconds since the epoch, or a datetime with a time
        zone; what is past is due at once) it reaches its service when that time has come, at most
        366 days ahead; returns the schedule's id, for :meth:`cancel`. A replay sends it only with
        `on_replay`. Raises :class:`~tenantry.errors.BadSubject`;
        :class:`~tenantry.errors.DeclarationError` for what no service has declared as a command;
        ValueError or TypeError for a time that can't be; and
        :class:`~tenantry.errors.TooMuchEmitted` beyond 1,000 messages or 8 MiB.
        """
        self._check()
        to = self._target(command, "command")
        due = schedule.due_time(after, at, clock.now())
        if due is None:
            self._stage(self._message(to, body), on_replay)
            return None
        name = self._digest(f"schedule\0{self._count}")
        self._stage(self._later(name, to, body, due), on_replay)
        return name

    def cancel(self, schedule_id: str, *, on_replay: bool = False) -> None:
        """Cancel what this service has scheduled for this tenant, when the handler has succeeded.

        Nothing happens where there is no such schedule, or not any more. Raises ValueError for
        what is no schedule's id. A replay cancels only with `on_replay`.
        """
        self._check()
        if not subjects.is_schedule(schedule_id):
            raise ValueError(f"{schedule_id[:80]!r} is no schedule's id: give what send() returned")
        key = (self.tenant, self.service, schedule_id)
        brief = {headers.TTL: "1s"}  # takes the place of what was there, and goes by itself
        gone = Staged(subjects.timer(*key), b"", headers=brief)
        gone = Staged(subjects.schedule(*key), b"", headers=brief, timer=gone)
        for index, staged in enumerate(self._staged):
            if staged.subject == gone.subject:
                self._staged[index] = gone  # the others keep their positions, and so their ids
                return
        self._stage(gone, on_replay)

    async def request(
        self,
        action: str,
        body: Any,
        *,
        type: type[T],  # noqa: A002
        timeout: float | None = None,
        on_replay: bool = False,
    ) -> T:
        """Ask another service of the mesh, within the deadline of this message.

        Raises the :class:`~tenantry.errors.Rejection` that the other side answers with,
        :class:`~tenantry.errors.DeclarationError` for what no service has declared as a request,
        and :class:`~tenantry.errors.Hopeless` in a replay unless it is allowed by `on_replay`.
        """
        self._check()
        if self.replaying and not on_replay:
            self._fence.suppressed += 1
            raise Hopeless(
                f"{self.service}.{self.action} asks {action} in a replay",
                hint="ask only `if not ctx.replaying`, or with on_replay=True",
            )
        to = self._target(action, "request")
        answer = await self._mesh.request(self, to, codec.encode(body), timeout)
        with from_inside():  # an answer that does not fit is not the asker's fault
            return codec.Decoder(type)(answer)

    def id_for(self, name: str) -> str:
        """An id for a thing that this message makes: 32 hex digits, the same on every delivery.

        Distinct names give distinct ids; so do distinct messages, tenants and actions.
        """
        return self._digest(f"id\0{name}")

    # --- for the runtime -----------------------------------------------------------------------

    def close(self) -> tuple[Staged, ...]:
        """End the context and return what was staged."""
        self._closed = True
        staged = tuple(self._staged)
        self._staged.clear()
        return staged

    @property
    def uses_state(self) -> bool:
        """Whether the handler has asked for its state."""
        return self._state is not None

    def writes(self) -> tuple[Write, ...]:
        """The staged writes of state; raises :class:`Superseded` for a message too late."""
        return self._state.staged() if self._state is not None else ()

    def looked(self) -> Mapping[str, Record | None]:
        """What each key of the state held that the handler has looked at."""
        return self._state.looked() if self._state is not None else {}

    def enter(self) -> None:
        """Make this the context of the running task."""
        _current.set(self)

    def _target(self, name: object, kind: Kind) -> Address:
        """Return this tenant's address of an action; raises where it can't be used as this kind."""
        if not isinstance(name, str):
            raise DeclarationError(
                f"{name!r:.80} is not the name of a {kind}", hint='write "<service>.<action>"'
            )
        self._mesh.check(name, kind)
        return Address(self.tenant, *subjects.split_action(name))

    def _stage(self, staged: Staged, on_replay: bool) -> None:
        self._count += 1  # also for what is held back: ids are the same in a replay
        if self.replaying and not on_replay:
            self._fence.suppressed += 1
            return
        size = self._bytes + len(staged.body)
        if len(self._staged) >= MAX_MESSAGES or size > MAX_BYTES:
            raise TooMuchEmitted(
                f"{self.service}.{self.action} emits too much: one message may emit "
                f"{MAX_MESSAGES:,} messages of {MAX_BYTES // 1024**2} MiB in all",
                hint="split the work: send a command for each part",
            )
        self._bytes = size
        self._staged.append(staged)

    def _message(self, to: Address, body: Any) -> Staged:
        return Staged(subjects.journal(to), codec.encode(body), self._id(self._count))

    def _later(self, name: str, to: Address, body: Any, due: float) -> Staged:
        key, index = (self.tenant, self.service, name), self._count
        own = {headers.COMMAND: to.name, headers.DUE: schedule.milliseconds(due)}
        if due - time.time() >= _ANEW:
            own[headers.HOPS] = "0"
        fields = schedule.timer(due, subjects.due(*key), f"{self.seq}.{index}")
        return Staged(
            subjects.schedule(*key),
            codec.encode(body),
            self._id(index),
            own,
            Staged(subjects.timer(*key), b"", headers=fields),
        )

    def _id(self, index: int) -> str:
        """An id that a redelivery draws again: from the cause, the reader and the position."""
        return f"{self.tenant}.m.{self._digest(str(index))}"

    def _digest(self, what: str) -> str:
        cause = f"{self.tenant}\0{self.message_id}\0{self.service}.{self.action}\0{what}"
        return hashlib.blake2b(cause.encode(), digest_size=16).hexdigest()

    def check(self) -> None:
        """Raise where the context has ended or its message belongs to another replica now."""
        self._check()
        self._fence.check()

    def _check(self) -> None:
        if self._closed:
            other = _current.get(self)
            if other.tenant != self.tenant:
                self._mesh.crossed(self, other)
            raise ContextClosed(
                f"the context of {self.service}.{self.action} has ended with its message",
                hint="await what a handler starts, or send a command for later work",
            )
        running = _current.get(None)
        if running is not None and running is not self:
            # Kept where handlers share it, and found there by another tenant's message.
            raise ForeignContext(
                f"{running.service}.{running.action} uses the context of another message",
                hint="use the context that the handler was called with, or tenantry.current()",
            )


def current() -> Context:
    """The context of the message that is being handled in this task; raises LookupError."""
    return _current.get()
