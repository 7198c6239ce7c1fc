"""Running services: the worker's life, its lanes, its dispatch."""

from tenantry.runtime.clock_check import ClockCheck
from tenantry.runtime.keys import ContextSigner, KeyTable
from tenantry.runtime.members import Heartbeat, Members
from tenantry.runtime.options import Runnable, WorkerOptions
from tenantry.runtime.worker import ServiceRun, Worker, join, leave

__all__ = [
    "ClockCheck",
    "ContextSigner",
    "Heartbeat",
    "KeyTable",
    "Members",
    "Runnable",
    "ServiceRun",
    "Worker",
    "WorkerOptions",
    "join",
    "leave",
]
