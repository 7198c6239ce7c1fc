from __future__ import annotations

import pytest
from hypothesis import settings

from tenantry.bus import Bus
from tenantry_workers.router.admission import Admission
from tenantry_workers.router.directory import Directory
from tests.unit.router.admitting import ACTIONS, STANDARD, admission_of, tenant

# No deadline: the machine that runs the tests may be busy.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture
def directory() -> Directory:
    """The real one; its tables are filled by hand instead of by watches."""
    directory = Directory(Bus(["nats://127.0.0.1:1"]))
    directory.plans.rows["standard"] = STANDARD
    for one in (
        tenant("acme"),
        tenant("globex"),
        tenant("asleep", state="suspended"),
        tenant("gone", state="deleted"),
        tenant("lost", plan="nowhere"),
    ):
        directory.tenants.rows[one.id] = one
    directory.actions |= ACTIONS
    return directory


@pytest.fixture
def admission(directory: Directory) -> Admission:
    return admission_of(directory)
