"""What a rejection says."""

from __future__ import annotations

from tenantry.messages.base import Message


class Problem(Message, frozen=True, kw_only=True):
    """Problem details (RFC 9457), the body of every rejection. Extension members may follow."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    """`urn:trace:<trace id>`: what to quote when asking for help."""
    hint: str = ""
