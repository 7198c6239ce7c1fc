"""The tenants worker: who the tenants are, what they have bought, what opens their doors."""

from tenantry_workers.tenants.worker import TenantsWorker

__all__ = ["TenantsWorker"]
