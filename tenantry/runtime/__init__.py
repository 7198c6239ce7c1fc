"""Running services: the worker's life, its lanes, its dispatch."""

from tenantry.runtime.keys import ContextSigner, KeyTable
from tenantry.runtime.members import Heartbeat, Members
from tenantry.runtime.options import Runnable, WorkerOptions
from tenantry.runtime.worker import ServiceRun, Worker

__all__ = [
    "ContextSigner",
    "Heartbeat",
    "KeyTable",
    "Members",
    "Runnable",
    "ServiceRun",
    "Worker",
    "WorkerOptions",
]
