"""`tenantry demo`: see a mesh at work."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from tenantry.cli import loop

Seconds = Annotated[
    float, Parameter(validator=validators.Number(gt=0, lte=3600), help="how long tenants shop")
]


def demo(*, seconds: Seconds = 15.0) -> int:
    """See a real mesh at work: four tenants, two accidents, checks at the end.

    A worker is killed under load. Then one tenant's ledger goes wrong, and
    is recovered by replay while the others' traffic goes on.

    It runs in a temporary folder on a free port and leaves nothing behind.
    It fails when one of its checks does.
    """
    from tenantry.demo import run

    return 0 if loop.run(run(seconds=seconds)) else 1
