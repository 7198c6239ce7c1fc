"""Being called wrongly, and examples in the help texts."""

from __future__ import annotations

from tenantry.errors import TenantryError


class UsageError(TenantryError):
    """The command was called wrongly: exit code 2."""

    code = "usage"


def examples(*lines: str) -> str:
    """Examples for the end of a help text."""
    return "\n".join(["Examples:", "", *(f"  {line}" for line in lines)])
