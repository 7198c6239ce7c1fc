"""A handler's signature is its schema: what it takes, what it answers."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tenantry import subjects
from tenantry.context.context import Context
from tenantry.context.platform import PlatformContext
from tenantry.errors import DeclarationError
from tenantry.messages import Empty, Kind
from tenantry.service.retry import Retry
from tenantry.wire.codec import Decoder, classes

Function = Callable[..., Coroutine[Any, Any, Any]]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One action with the function that serves it; made once, read for every message."""

    service: str
    """The service whose message this is: for a follower, the one that emits."""
    action: str
    kind: Kind
    function: Function
    input: Any
    output: Any
    public: bool = False
    timeout: float = 30.0
    """Longest a run may take, seconds."""
    retry: Retry = field(default_factory=Retry)
    ordered: bool = True
    """Whether a tenant's messages run one after another, in the journal's order."""
    replayable: bool = False
    """Whether a replay runs it again."""
    description: str = ""
    takes_body: bool = True
    decode: Decoder[Any] = field(repr=False)
    returns: tuple[type, ...] = (object,)
    """Classes of which an answer is an instance."""

    name: str = field(init=False)
    """`<service>.<action>`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.service}.{self.action}")

    def check_output(self, result: Any) -> None:
        """Raise TypeError where a handler returns something else than it declares."""
        if not isinstance(result, self.returns):
            raise TypeError(
                f"{self.name} declares {self.output} but returned {type(result).__name__}"
            )


def read(
    function: Function,
    *,
    service: str,
    action: str,
    kind: Kind,
    public: bool,
    timeout: Any,
    retry: Retry | None = None,
    ordered: bool = True,
    replayable: bool = False,
    lenient: bool = False,
) -> Handler:
    """Read a handler's signature; raises :class:`DeclarationError` where it can't serve."""
    where = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
    _check_function(function, where)
    _check_options(where, timeout, retry)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DeclarationError(
            f"{where}: {error}", hint="types of a signature must be importable when it is declared"
        ) from None
    parameters = list(inspect.signature(function).parameters.values())
    if not 1 <= len(parameters) <= 2 or any(p.kind not in _POSITIONAL for p in parameters):
        raise DeclarationError(
            f"{where} takes {', '.join(map(str, parameters)) or 'nothing'}",
            hint="a handler takes the context and, if any, the body: `async def f(ctx, order)`",
        )
    first = hints.get(parameters[0].name, Context)
    if first not in (Context, PlatformContext, Any):
        raise DeclarationError(
            f"{where}: the first parameter is the context, not {getattr(first, '__name__', first)}",
            hint="write `async def f(ctx: Context, body: …)`",
        )
    takes_body = len(parameters) == 2
    input_type = hints.get(parameters[1].name) if takes_body else Empty
    output = hints.get("return", type(None))
    if input_type is None:
        raise DeclarationError(f"{where}: the body has no type", hint="annotate it")
    if kind != "request" and output is not type(None):
        raise DeclarationError(
            f"{where}: {subjects.article(kind)} {kind} has no answer", hint="return None"
        )
    for part in (input_type, output):
        schema_of(part, where)
    return Handler(
        service=service,
        action=action,
        kind=kind,
        function=function,
        input=input_type,
        output=output,
        public=public,
        timeout=timeout,
        retry=retry or Retry(),
        ordered=ordered,
        replayable=replayable,
        description=inspect.cleandoc(function.__doc__ or "").partition("\n")[0],
        takes_body=takes_body,
        decode=Decoder(input_type, strict=public and takes_body and not lenient),
        returns=classes(output),
    )


def _check_function(function: Function, where: str) -> None:
    if inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"{where} has a `yield`, which makes it a generator",
            hint="a handler answers once: `return` it, or send it with ctx.emit or ctx.send",
        )
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{where} must be an async function", hint="write `async def`")


def _check_options(where: str, timeout: object, retry: object) -> None:
    if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise DeclarationError(
            f"{where}: the timeout must be a positive number of seconds, it is {timeout!r}",
            hint="write timeout=5.0",
        )
    if retry is not None and not isinstance(retry, Retry):
        raise DeclarationError(
            f"{where}: {retry!r} says not how to retry", hint="write Retry(tries=3)"
        )


def schema_of(kind: Any, where: str = "") -> dict[str, Any]:
    """JSON Schema of a type; raises :class:`DeclarationError` where JSON can't carry it."""
    if kind is type(None):
        return {}
    try:
        return msgspec.json.schema(kind)
    except (TypeError, NameError) as error:
        raise DeclarationError(
            f"{where or kind}: {error}", hint="bodies are msgspec.Struct classes or JSON types"
        ) from None
