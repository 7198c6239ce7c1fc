"""`tenantry demo`: a real mesh, four tenants, two accidents, and checks at the end."""

from tenantry.demo.story import run

__all__ = ["run"]
