"""`tenantry demo`: a real mesh, three tenants, an accident in the middle, and checks at the end."""

from tenantry.demo.story import run

__all__ = ["run"]
