"""The actions that services have declared: what a handler may send, ask for and follow."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog

from tenantry.bus import Bucket, Bus, Table
from tenantry.errors import DeclarationError
from tenantry.messages import ActionInfo, Declaration, Kind
from tenantry.runtime.registry import BUCKET
from tenantry.service.handler import schema_of
from tenantry.service.service import RESERVED, Service
from tenantry.subjects import is_version, version_key

_MOST_NAMES = 50
"""Unknown names that are counted one by one: a handler may make them up from what it is sent."""

_LONGEST_NAME = 127
"""Characters of `<service>.<action>`."""

_VERBS = {"command": "ctx.send", "request": "ctx.request", "event": "ctx.emit of its own service"}

log = structlog.get_logger("tenantry.worker")


class DeclaredActions:
    """All actions of the catalogue, kept current by a watch, and those of this process's services.

    Of an action that several versions declare, the newest one tells what it is.
    """

    def __init__(self, bus: Bus, services: Sequence[Service]) -> None:
        own = [service.declaration() for service in services if not service.platform]
        self._own = {
            f"{each.service}.{action.name}": action for each in own for action in each.actions
        }
        self._table = Table(Bucket(bus, BUCKET, Declaration), changed=self._changed)
        self._actions: dict[str, ActionInfo] | None = None

    async def start(self) -> None:
        """Load the catalogue and follow its changes."""
        await self._table.start()

    async def stop(self) -> None:
        """Follow no more."""
        await self._table.stop()

    def get(self, name: str) -> ActionInfo | None:
        """The action `<service>.<action>`, or None where nobody has declared it."""
        return self._all().get(name)

    def like(self, name: str, kind: Kind) -> str:
        """The action of this kind whose name is nearest; empty where none is near."""
        names = [each for each, action in self._all().items() if action.kind == kind]
        return next(iter(difflib.get_close_matches(name, names, 1)), "")

    def warn(self, service: Service) -> None:
        """Log which events a service follows that are not there, or do not fit its handlers."""
        for name, handler in service.followers.items():
            if handler.service in RESERVED:
                continue  # the control plane's own are in no catalogue
            event = self.get(name)
            if event is None or event.kind != "event":
                near = self.like(name, "event")
                hint = f"did you mean {near}?" if near else "it is followed once it is declared"
                log.warning(
                    "nobody declares this event", service=service.name, follows=name, hint=hint
                )
            elif why := misfit(schema_of(handler.input), event.input):
                log.warning("event does not fit", service=service.name, follows=name, why=why)

    def _changed(self, _key: str, _declaration: Declaration | None) -> None:
        self._actions = None

    def _all(self) -> dict[str, ActionInfo]:
        if self._actions is None:
            known = [each for each in self._table.rows.values() if is_version(each.version)]
            known.sort(key=lambda each: version_key(each.version))
            found = {
                f"{each.service}.{action.name}": action for each in known for action in each.actions
            }
            self._actions = found | self._own
        return self._actions


class WrongKind(DeclarationError):
    """An action is used as what it is not."""

    retry = False


class Outgoing:
    """Checks what the handlers of one service send and ask for.

    `unknown` counts what it refuses, by the name of the action.
    """

    def __init__(self, service: str, declared: DeclaredActions, unknown: Counter[str]) -> None:
        self._unknown = unknown
        self._service = service
        self._declared = declared

    def check(self, name: str, kind: Kind) -> None:
        """Raise :class:`DeclarationError` unless `<service>.<action>` is declared as this kind."""
        action = self._declared.get(name)
        if action is None or action.kind != kind:
            raise self._refusal(name[:_LONGEST_NAME], kind, action)

    def _refusal(self, name: str, kind: Kind, action: ActionInfo | None) -> DeclarationError:
        self._count(name, kind)
        if action is not None:
            return WrongKind(
                f"{self._service} can't use {name} as a {kind}: it is {_a(action.kind)}",
                hint=f"it is for {_VERBS[action.kind]}",
            )
        near = self._declared.like(name, kind)
        return DeclarationError(
            f"{self._service} can't reach the {kind} {name}: no service has declared it",
            hint=f"did you mean {near}?" if near else "`tenantry services` shows what there is",
        )

    def _count(self, name: str, kind: Kind) -> None:
        if name not in self._unknown:
            if len(self._unknown) >= _MOST_NAMES:
                name = "others"
            else:
                log.warning("no such action", service=self._service, action=name, kind=kind)
        self._unknown[name] += 1


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "event" else f"a {kind}"


def misfit(takes: dict[str, Any], event: dict[str, Any]) -> str:
    """The first place where an event's schema does not fit the type that a handler takes.

    Empty where none is found. It compares types and the members of objects; what JSON Schema can
    say besides is left to the decoding of each message.
    """
    return _misfit(takes, event, (takes.get("$defs", {}), event.get("$defs", {})), "$", 16)


_Defs = tuple[dict[str, Any], dict[str, Any]]


def _misfit(takes: Any, event: Any, defs: _Defs, path: str, depth: int) -> str:
    takes, event = _resolved(takes, defs[0]), _resolved(event, defs[1])
    wanted, given = takes.get("type"), event.get("type")
    if not depth or not isinstance(wanted, str) or not isinstance(given, str):
        return ""
    if wanted != given:
        return (
            "" if (wanted, given) == ("number", "integer") else f"{path} is {given}, not {wanted}"
        )
    if wanted == "array" and "items" in takes and "items" in event:
        return _misfit(takes["items"], event["items"], defs, f"{path}[]", depth - 1)
    has, needs = event.get("properties", {}), takes.get("properties", {})
    for name in takes.get("required", ()):
        if name not in has and event.get("additionalProperties") in (None, False):
            return f"{path}.{name} is missing"
    found = (
        _misfit(needs[name], has[name], defs, f"{path}.{name}", depth - 1)
        for name in needs
        if name in has
    )
    return next(filter(None, found), "")


def _resolved(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, dict) and (ref := schema.get("$ref")):
        schema = defs.get(str(ref).rpartition("/")[2], {})
    return schema if isinstance(schema, dict) else {}
