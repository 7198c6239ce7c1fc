"""The mesh's transport: the one package that knows nats-py and JetStream's wire API."""

from tenantry.bus.connection import Bus, Message, Subscription
from tenantry.bus.jetstream import Stored, api, store
from tenantry.bus.kv import Bucket, Entry, Table
from tenantry.bus.pull import Pull
from tenantry.bus.reader import Reader

__all__ = [
    "Bucket",
    "Bus",
    "Entry",
    "Message",
    "Pull",
    "Reader",
    "Stored",
    "Subscription",
    "Table",
    "api",
    "store",
]
