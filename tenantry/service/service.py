"""A service: a named set of actions, declared by decorating plain async functions."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from tenantry import subjects
from tenantry.context.context import Context
from tenantry.context.event import Event
from tenantry.errors import BadSubject, DeclarationError
from tenantry.messages import ActionInfo, Declaration, Kind
from tenantry.service.handler import Function, Handler, read, schema_of
from tenantry.service.retry import Retry

T = TypeVar("T")
F = TypeVar("F", bound=Function)
RESERVED = frozenset({"platform", "router", "tenants"})
"""Names that would let a service pass its messages off as the control plane's."""

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
_WORDS = frozenset({"title", "description", "examples"})


class Service:
    """A named set of actions.

    `concurrency` is how many messages one replica handles at a time, requests and those of the
    journal, shared fairly by the tenants; `adaptive` lets a replica run fewer while they take much
    longer than usual. A handler that asks its own service holds its slot meanwhile. `retry` is how
    handlers without a policy of their own are tried again. A message that more than `max_hops`
    messages of services led to, each the cause of the next, is refused as `too_deep`: that ends a
    circle of events. A `platform` service serves the control plane on
    `platform.<service>.<action>`, without a tenant.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "0.1.0",
        description: str = "",
        concurrency: int = 64,
        adaptive: bool = False,
        retry: Retry | None = None,
        max_hops: int = 100,
        platform: bool = False,
    ) -> None:
        self.name = _declared(name, "service")
        if name in RESERVED and not platform:
            raise DeclarationError(
                f"service {name}: the name is the control plane's own", hint="choose another"
            )
        if not isinstance(version, str) or not subjects.is_version(version):
            raise DeclarationError(
                f"service {name}: {version!r} is not a version", hint="write 1.2.3 or 1.2.3-rc.1"
            )
        if not isinstance(concurrency, int) or concurrency < 1:
            raise DeclarationError(
                f"service {name}: concurrency must be at least 1, it is {concurrency!r}"
            )
        if not isinstance(max_hops, int) or max_hops < 1:
            raise DeclarationError(
                f"service {name}: max_hops must be at least 1, it is {max_hops!r}"
            )
        self.max_hops = max_hops
        self.version = version
        self.description = description
        self.concurrency = concurrency
        self.adaptive = adaptive
        self.retry = retry or Retry()
        self.platform = platform
        self.handlers: dict[str, Handler] = {}
        """Requests and commands, by action."""
        self.followers: dict[str, Handler] = {}
        """Followed events, by `<service>.<action>`."""
        self.events: dict[str, Event[Any]] = {}
        self.resets: Callable[[Context], Awaitable[None]] | None = None
        """The hook that clears a tenant's state before a replay."""
        self._lifespan: Lifespan | None = None

    # --- declaring -----------------------------------------------------------------------------

    def request(
        self, name: str, *, public: bool = False, timeout: float = 30.0, lenient: bool = False
    ) -> Callable[[F], F]:
        """Declare an action that is answered at once; `public` opens it to tenants' programs.

        The body of a public action may only have fields that its type declares, unless it is
        `lenient`: what a program has mistyped would pass unnoticed.
        """
        return self._action(name, "request", public=public, timeout=timeout, lenient=lenient)

    def command(
        self,
        name: str,
        *,
        public: bool = False,
        timeout: float = 60.0,
        retry: Retry | None = None,
        ordered: bool = True,
        replayable: bool = False,
        lenient: bool = False,
    ) -> Callable[[F], F]:
        """Declare an action that is stored, then handled by this service, at least once.

        The messages of one tenant run one after another, in the journal's order, unless `ordered`
        is false: then one that fails holds up no other. `replayable` lets a replay run it again.
        The body of a public one is held to its type as that of a request, also when it is replayed:
        make it `lenient` when its type loses a field that the journal's messages have.
        """
        self._refuse_platform()
        return self._action(
            name,
            "command",
            public=public,
            timeout=timeout,
            retry=retry or self.retry,
            ordered=ordered,
            replayable=replayable,
            lenient=lenient,
        )

    def event(self, name: str, type: type[T], *, description: str = "") -> Event[T]:  # noqa: A002
        """Declare a fact that this service emits."""
        _declared(name, "event")
        self._refuse_twice(name)
        schema_of(type, f"{self.name}.{name}")
        event = Event(self.name, name, type, description or _first_line(type))
        self.events[name] = event
        return event

    def on(
        self,
        event: str | Event[Any],
        *,
        timeout: float = 60.0,
        retry: Retry | None = None,
        ordered: bool = True,
        replayable: bool = False,
    ) -> Callable[[F], F]:
        """Follow an event of any service, as `<service>.<event>`, durably; else as a command."""
        self._refuse_platform()
        if not isinstance(event, str | Event):
            raise DeclarationError(
                f"service {self.name}: {event!r} is no event",
                hint='write @service.on("orders.placed")',
            )
        name = event if isinstance(event, str) else f"{event.service}.{event.name}"

        def declare(function: F) -> F:
            try:
                service, action = subjects.split_action(name)
            except BadSubject as error:
                raise DeclarationError(f"service {self.name}: {error.message}") from None
            if name in self.followers:
                raise DeclarationError(f"service {self.name} follows {name} twice")
            self.followers[name] = read(
                function,
                service=service,
                action=action,
                kind="event",
                public=False,
                timeout=timeout,
                retry=retry or self.retry,
                ordered=ordered,
                replayable=replayable,
            )
            return function

        return declare

    def reset(self, function: Callable[[Context], Awaitable[None]]) -> Any:
        """Declare the hook that clears one tenant's state before a replay from the start.

        What the service keeps in `ctx.state` alone is cleared by `await ctx.state.clear()`.
        """
        if not inspect.iscoroutinefunction(function):
            raise DeclarationError(f"service {self.name}: the reset hook must be an async function")
        self.resets = function
        return function

    def lifespan(self, function: Callable[[], AsyncIterator[Any]]) -> Lifespan:
        """Declare what lives as long as the worker: an async generator that yields once.

        What it yields is `ctx.resources` in every handler.
        """
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise DeclarationError(
                f"service {self.name}: the lifespan must be an async generator",
                hint="write `async def`, and `yield` once in it",
            )
        self._lifespan = asynccontextmanager(function)
        return self._lifespan

    def _action(self, name: str, kind: Kind, **options: Any) -> Callable[[F], F]:
        _declared(name, "action")

        def declare(function: F) -> F:
            self._refuse_twice(name)
            self.handlers[name] = read(
                function, service=self.name, action=name, kind=kind, **options
            )
            return function

        return declare

    def _refuse_platform(self) -> None:
        if self.platform:
            raise DeclarationError(f"service {self.name}: a platform service handles only requests")

    def _refuse_twice(self, name: str) -> None:
        if name in self.handlers or name in self.events:
            raise DeclarationError(
                f"service {self.name} declares {name} twice", hint="give one of them another name"
            )

    # --- reading -------------------------------------------------------------------------------

    @property
    def durable(self) -> dict[str, Handler]:
        """What this service consumes from the journal, by `<service>.<action>`."""
        commands = {h.name: h for h in self.handlers.values() if h.kind == "command"}
        return {**commands, **self.followers}

    @asynccontextmanager
    async def living(self) -> AsyncIterator[Any]:
        """Run the lifespan, if there is one."""
        if self._lifespan is None:
            yield None
        else:
            async with self._lifespan() as resources:
                yield resources

    def declaration(self) -> Declaration:
        """What the catalogue holds of this service."""
        actions = tuple(
            ActionInfo(
                name=handler.action,
                kind=handler.kind,
                public=handler.public,
                description=handler.description,
                timeout=handler.timeout,
                input=schema_of(handler.input),
                output=schema_of(handler.output),
            )
            for handler in self.handlers.values()
        ) + tuple(
            ActionInfo(
                name=event.name,
                kind="event",
                description=event.description,
                input=schema_of(event.type),
            )
            for event in self.events.values()
        )
        contract = msgspec.json.encode(
            sorted((a.name, a.kind, a.public, _bare(a.input), _bare(a.output)) for a in actions),
            order="sorted",
        )
        return Declaration(
            service=self.name,
            version=self.version,
            description=self.description,
            actions=actions,
            follows=tuple(self.followers),
            replays=tuple(name for name, each in self.durable.items() if each.replayable),
            resets=self.resets is not None,
            digest=hashlib.sha256(contract).hexdigest()[:16],
        )


def _declared(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise DeclarationError(
            f"a name is missing for the {what}", hint='write `("name")` after it'
        )
    try:
        return subjects.check_name(name, what)
    except BadSubject as error:
        raise DeclarationError(error.message, hint=error.hint) from None


def _bare(schema: Any) -> Any:
    """A schema without what only people read: other words are no other contract."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {key: part for key, part in schema.items() if key not in _WORDS}
    for key in bare.keys() & {"properties", "$defs"}:
        bare[key] = {name: _bare(part) for name, part in bare[key].items()}
    for key in bare.keys() & {"items", "prefixItems", "additionalProperties", "anyOf"}:
        bare[key] = _bare(bare[key])
    return bare


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
