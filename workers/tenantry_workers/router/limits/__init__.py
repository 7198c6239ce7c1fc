"""How many messages a tenant may send: rate limits, alone or shared by all routers.

`shared` and `store` need the package redis: they are imported where a URL is given.
"""

from tenantry_workers.router.limits.local import LocalLimiter
from tenantry_workers.router.limits.meter import Decision, Level, Limiter, Meter

__all__ = ["Decision", "Level", "Limiter", "LocalLimiter", "Meter"]
