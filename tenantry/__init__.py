"""Tenantry: a multi-tenant, event-driven mesh of Python workers on NATS.

What authors of services and of programs at the edge import:

    from tenantry import Client, Context, Service, errors
"""

from importlib.metadata import PackageNotFoundError, version

from tenantry import errors, subjects
from tenantry.client import Client
from tenantry.context.context import Context, current
from tenantry.context.event import Event
from tenantry.context.platform import PlatformContext
from tenantry.context.state import State
from tenantry.errors import Rejection, TenantryError
from tenantry.runtime.worker import Worker
from tenantry.service.retry import Retry
from tenantry.service.service import Service

try:
    __version__ = version("tenantry")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0.0.0"

compiled = not (subjects.__file__ or "").endswith(".py")
"""Whether this is the wheel whose hot paths are compiled (decision 27)."""

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
