"""How many messages a tenant may send: rate limits, alone or shared by all routers."""

from tenantry_workers.router.limits.local import LocalLimiter
from tenantry_workers.router.limits.meter import Decision, Limiter, Meter
from tenantry_workers.router.limits.shared import SharedLimiter
from tenantry_workers.router.limits.store import Store

__all__ = ["Decision", "Limiter", "LocalLimiter", "Meter", "SharedLimiter", "Store"]
