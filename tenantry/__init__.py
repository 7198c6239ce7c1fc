"""Tenantry: a multi-tenant, event-driven mesh of Python workers on NATS.

What authors of services and of programs at the edge import:

    from tenantry import Client, Context, Service, errors
"""

from typing import TYPE_CHECKING, Any

from tenantry import errors, subjects

if TYPE_CHECKING:
    from tenantry.client import Client
    from tenantry.context.context import Context, current
    from tenantry.context.event import Event
    from tenantry.context.platform import PlatformContext
    from tenantry.context.state import State
    from tenantry.errors import Rejection, TenantryError
    from tenantry.runtime.worker import Worker
    from tenantry.service.retry import Retry
    from tenantry.service.service import Service

    __version__: str

compiled = not (subjects.__file__ or "").endswith(".py")
"""Whether this is the wheel whose hot paths are compiled (decision 27)."""

_WHERE = {
    "Client": "client",
    "Context": "context.context",
    "Event": "context.event",
    "PlatformContext": "context.platform",
    "Rejection": "errors",
    "Retry": "service.retry",
    "Service": "service.service",
    "State": "context.state",
    "TenantryError": "errors",
    "Worker": "runtime.worker",
    "current": "context.context",
}
"""Imported when first used: a command, or a service, needs a few of them only."""

__all__ = [
    "Client",
    "Context",
    "Event",
    "PlatformContext",
    "Rejection",
    "Retry",
    "Service",
    "State",
    "TenantryError",
    "Worker",
    "__version__",
    "compiled",
    "current",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = _version()
    elif name in _WHERE:
        import importlib

        found = getattr(importlib.import_module(f"tenantry.{_WHERE[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tenantry")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0.0.0"
