"""The mesh's transport: the one package that knows nats-py and JetStream's wire API."""

from tenantry.bus.connection import Bus, Message, Subscription
from tenantry.bus.jetstream import Stored, api, store
from tenantry.bus.kv import Bucket, Entry, Table
from tenantry.bus.pull import Pull

__all__ = [
    "Bucket",
    "Bus",
    "Entry",
    "Message",
    "Pull",
    "Stored",
    "Subscription",
    "Table",
    "api",
    "store",
]
