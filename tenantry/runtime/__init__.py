"""Running services: the worker's life, its lanes, its dispatch."""

from tenantry.runtime.keys import KeyTable, publish_key
from tenantry.runtime.members import Heartbeat, Members
from tenantry.runtime.options import Runnable, WorkerOptions
from tenantry.runtime.worker import ServiceRun, Worker

__all__ = [
    "Heartbeat",
    "KeyTable",
    "Members",
    "Runnable",
    "ServiceRun",
    "Worker",
    "WorkerOptions",
    "publish_key",
]
