"""The router: everything from the edge enters the mesh through its one admission."""

from tenantry_workers.router.worker import RouterWorker

__all__ = ["RouterWorker"]
