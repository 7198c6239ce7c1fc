"""Keys of a running mesh: another one takes over, or one is taken away."""

from tenantry.rotation.accounts import Accounts
from tenantry.rotation.connections import Connected, Connections
from tenantry.rotation.contexts import Contexts
from tenantry.rotation.instances import Instance, Instances
from tenantry.rotation.tenants import Voided, in_force, voided_by

__all__ = [
    "Accounts",
    "Connected",
    "Connections",
    "Contexts",
    "Instance",
    "Instances",
    "Voided",
    "in_force",
    "voided_by",
]
