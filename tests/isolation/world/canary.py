"""A secret a tenant, in every place that it fills; whoever else holds it has crossed the wall."""

from __future__ import annotations

import re
import secrets

_PATTERN = re.compile(r"cafe[0-9a-f]{12}")
"""Fits wherever a tenant may write: bodies, headers, ids of messages, names of state, trace ids."""


class Canaries:
    """Who owns which secret."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._of: dict[str, str] = {}

    def make(self, tenant: str) -> str:
        """The secret of a new tenant: 16 hex digits."""
        secret = f"cafe{secrets.token_hex(6)}"
        self._owner[secret], self._of[tenant] = tenant, secret
        return secret

    def of(self, tenant: str) -> str:
        """The secret of a tenant."""
        return self._of[tenant]

    def owners(self, *texts: str | bytes) -> set[str]:
        """Whose secrets stand in these texts, in any case of letters."""
        found: set[str] = set()
        for text in texts:
            plain = text.decode("latin-1") if isinstance(text, bytes) else text
            found.update(
                self._owner[each] for each in _PATTERN.findall(plain.lower()) if each in self._owner
            )
        return found
