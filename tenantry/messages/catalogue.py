"""What services declare, and that they are there."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from tenantry.messages.base import Message, Name, Seconds

Kind = Literal["request", "command", "event"]


class ActionInfo(Message, frozen=True, kw_only=True):
    """One action as a service declares it."""

    name: Name
    kind: Kind
    public: bool = False
    description: str = ""
    timeout: Seconds = 30.0
    input: dict[str, Any] = field(default_factory=dict)
    """JSON Schema of the body."""
    output: dict[str, Any] = field(default_factory=dict)
    """JSON Schema of the answer; empty for commands and events."""


class Declaration(Message, frozen=True, kw_only=True):
    """A version of a service (KV bucket `catalogue`, key: `<service>.<version>`)."""

    service: Name
    version: str
    description: str = ""
    actions: tuple[ActionInfo, ...] = ()
    follows: tuple[str, ...] = ()
    """Events it follows, as `<service>.<action>`."""
    replays: tuple[str, ...] = ()
    """What a replay runs again, as `<service>.<action>`."""
    resets: bool = False
    """Whether it can clear a tenant's state before a replay."""
    digest: str = ""
    """Hash over what callers rely on: actions, kinds, schemas."""


class Alive(Message, frozen=True, kw_only=True):
    """`platform.alive.<service>`, each second, and `platform.gone.<service>` when it stops."""

    service: Name
    version: str
    instance: str
    connection: int = 0
    """How often it has gone over to another connection by itself; the end of one before is none."""
