"""Erasing a tenant: what running instances are told, and what they answer."""

from __future__ import annotations

from tenantry.messages.base import Message, TenantId


class Erasure(Message, frozen=True, kw_only=True):
    """`platform.erased`: a tenant is erased, every instance ends what it has in hand of it."""

    tenant: TenantId
    upto: int
    """The last sequence of the journal when it was purged: later messages are not meant."""


class InHand(Message, frozen=True, kw_only=True):
    """The answer of one instance to :class:`Erasure`."""

    service: str
    instance: str
    count: int
    """Messages of the tenant that still run here or wait to run, requests too."""
