"""A replica of the leases that lags behind ends no instance that is alive."""

from __future__ import annotations

import pytest

from tenantry.errors import Conflict
from tests.unit.delivery.instances import Instance, Instances


@pytest.fixture
async def one(crowd: Instances) -> Instance:
    return await crowd.start()


def know_nothing(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the instance's reads be answered by a replica that has nothing."""

    async def read(_key: str) -> None:
        return None

    monkeypatch.setattr(instance.leases._bucket, "read", read)


async def test_a_lease_that_a_replica_does_not_know_yet_is_alive(
    crowd: Instances, one: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await crowd.start()
    know_nothing(one, monkeypatch)
    assert await one.leases.exists(other.id)
    await other.renews()
    assert other.fenced == 0


async def test_a_lease_that_is_not_there_is_gone(one: Instance) -> None:
    assert not await one.leases.exists("nobody-1")


async def test_a_lease_that_was_gone_once_can_not_be_taken(crowd: Instances, one: Instance) -> None:
    await one.leases.exists("nobody-1")
    assert not await one.leases.exists("nobody-1")
    with pytest.raises(Conflict):
        await crowd.bucket.write(crowd.key("nobody-1"), b"{}", 0)


async def test_a_lease_that_is_deleted_is_gone(crowd: Instances, one: Instance) -> None:
    revision = await crowd.lease("nobody-1")
    assert await one.leases.exists("nobody-1")
    await crowd.bucket.delete(crowd.key("nobody-1"), revision)
    assert not await one.leases.exists("nobody-1")
