"""What the server itself lets a tenant's program do. Every "cannot" has its "can"."""

from __future__ import annotations

import nats
import pytest

from tenantry.operator import claims, creds
from tenantry.operator.keys import KeyPair, Kind
from tests.integration.operator.clients import PATIENCE, SILENCE, Client, Mesh

OWN = ["tenant.acme.orders.place", "tenant.acme.orders", "tenant.acme.orders.place.more"]
FOREIGN = [
    "tenant.umbrella.orders.place",
    "tenant.acm.orders.place",
    "tenant.acme2.orders.place",
    "tenant.Acme.orders.place",
    "request.acme.orders.place",
    "edge.acme.orders.place",
    "journal.0.acme.orders.placed",
    "dead.acme.orders.placed",
    "platform.catalogue.add",
    "_INBOX.umbrella.x",
    "_INBOX.acme.x",
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.PURGE.JOURNAL",
    "$JS.ACK.JOURNAL.orders.1.1.1.1.1",
    "$KV.tenants.acme",
    "$SRV.PING",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.USER.INFO",
]
OWN_INBOXES = ["_INBOX.acme.x", "_INBOX.acme.>", "_INBOX.acme.*.*"]
FOREIGN_INBOXES = [
    "_INBOX.umbrella.>",
    "_INBOX.>",
    "_INBOX.*.>",
    "_INBOX.*",
    "_INBOX.acme2.>",
    "_MESH.>",
    ">",
    "*.>",
    "tenant.>",
    "tenant.acme.>",
    "tenant.*.orders.place",
    "tenant.umbrella.orders.place",
    "edge.>",
    "$SYS.>",
    "$JS.>",
]


@pytest.fixture
async def acme(mesh: Mesh) -> Client:
    return await mesh.tenant("acme")


@pytest.mark.parametrize("subject", OWN)
async def test_a_tenant_publishes_under_its_own_id(acme: Client, subject: str) -> None:
    assert await acme.may_publish(subject)


@pytest.mark.parametrize("subject", FOREIGN)
async def test_a_tenant_can_not_publish_elsewhere(acme: Client, subject: str) -> None:
    assert not await acme.may_publish(subject)


@pytest.mark.parametrize("subject", OWN_INBOXES)
async def test_a_tenant_subscribes_its_own_inbox(acme: Client, subject: str) -> None:
    assert await acme.may_subscribe(subject)


@pytest.mark.parametrize("subject", FOREIGN_INBOXES)
async def test_a_tenant_can_not_subscribe_elsewhere(acme: Client, subject: str) -> None:
    assert not await acme.may_subscribe(subject)


@pytest.mark.parametrize("subject", OWN_INBOXES)
async def test_a_tenant_queue_subscribes_its_own_inbox(acme: Client, subject: str) -> None:
    assert await acme.may_subscribe(subject, queue="router")


@pytest.mark.parametrize("subject", FOREIGN_INBOXES)
async def test_a_tenant_can_not_queue_subscribe_elsewhere(acme: Client, subject: str) -> None:
    assert not await acme.may_subscribe(subject, queue="router")


async def test_two_programs_of_one_tenant_have_the_same_rights(mesh: Mesh, acme: Client) -> None:
    other = await mesh.tenant("acme")
    assert await other.may_publish(OWN[0])


async def test_a_reply_reaches_the_inbox_of_its_tenant(mesh: Mesh, acme: Client) -> None:
    inbox = await acme.subscribe("_INBOX.acme.>")
    service = await mesh.role("service")
    await service.nats.publish("_INBOX.acme.x", b"reply")
    assert (await inbox.next_msg(PATIENCE)).data == b"reply"


async def test_a_reply_does_not_reach_another_tenant(mesh: Mesh, acme: Client) -> None:
    inbox = await acme.subscribe("_INBOX.acme.>")
    service = await mesh.role("service")
    await service.nats.publish("_INBOX.umbrella.x", b"reply")
    await service.settle()
    with pytest.raises(nats.errors.TimeoutError):
        await inbox.next_msg(SILENCE)


async def test_nobody_comes_in_without_credentials(mesh: Mesh) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await mesh.open(Client(""))


async def test_credentials_of_the_home_come_in(mesh: Mesh) -> None:
    assert not await mesh.refuses(mesh.home.tenant_creds("acme"))


async def test_a_self_made_jwt_does_not_come_in(mesh: Mesh) -> None:
    user, account = KeyPair.generate(Kind.USER), KeyPair.generate(Kind.ACCOUNT)
    jwt = claims.encode(
        claims.User(issuer_account=mesh.home.edge_public_key, tags=("tenant:acme",)),
        subject=user.public_key,
        signer=account,
    )
    assert await mesh.refuses(creds.render(jwt, user))


async def test_a_tenant_jwt_with_permissions_of_its_own_does_not_come_in(mesh: Mesh) -> None:
    user = KeyPair.generate(Kind.USER)
    key = KeyPair.from_seed((mesh.home.path / "keys" / "edge-tenant.nk").read_text())

    class Greedy(claims.User, frozen=True, tag="user", tag_field="type"):
        pub: claims.Permission = claims.Permission(allow=(">",))

    jwt = claims.encode(
        Greedy(issuer_account=mesh.home.edge_public_key, tags=("tenant:acme",)),
        subject=user.public_key,
        signer=key,
    )
    assert await mesh.refuses(creds.render(jwt, user))


@pytest.fixture
async def nobody(mesh: Mesh) -> Client:
    """Signed with the key of all tenants, but without a tenant. The home never issues this."""
    user = KeyPair.generate(Kind.USER)
    key = KeyPair.from_seed((mesh.home.path / "keys" / "edge-tenant.nk").read_text())
    jwt = claims.encode(
        claims.User(issuer_account=mesh.home.edge_public_key), subject=user.public_key, signer=key
    )
    return await mesh.connect(creds.render(jwt, user))


@pytest.mark.parametrize("subject", [*OWN, *FOREIGN, "tenant", "tenant..orders.place"])
async def test_a_jwt_without_a_tenant_publishes_nothing(nobody: Client, subject: str) -> None:
    assert not await nobody.may_publish(subject)


@pytest.mark.parametrize("subject", [*OWN_INBOXES, *FOREIGN_INBOXES])
async def test_a_jwt_without_a_tenant_subscribes_nothing(nobody: Client, subject: str) -> None:
    assert not await nobody.may_subscribe(subject)


async def test_an_expired_jwt_does_not_come_in(mesh: Mesh) -> None:
    assert await mesh.refuses(mesh.home.tenant_creds("acme", expires=1))
