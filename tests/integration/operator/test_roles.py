"""What the server lets each role of the mesh do."""

from __future__ import annotations

import json

import pytest
from nats.js.api import StreamConfig, SubjectTransform

from tests.integration.operator.clients import PATIENCE, Mesh

BUCKETS = {
    "tenants": "acme",
    "plans": "standard",
    "catalogue": "orders.1.0.0",
    "keys": "context.1",
    "state": "acme.orders.x",
    "cursors": "orders.acme",
    "replays": "orders.acme",
    "checkpoints": "orders.3",
    "leases": "orders.one",
    "suspended": "acme",
}
"""The buckets, and a key in each."""

ANOTHERS_INBOX = "_MESH.UBIZF6LJ5WEZ4PZQZGDPPWEAPRL5MFNVZLTLGTGFYKYVPBKJGZ6DVJ5M.x"

SUBSCRIBES = {
    "router": [
        "edge.>",
        "edge.*.*.*",
        "$SRV.PING",
        "platform.router.renew_context",
        "stats.tenants",
    ],
    "service": [
        *["request.*.orders.*", "$SRV.INFO.orders", "platform.alive.orders", "stats.tenants"],
        *["$KV.leases.orders.*", "platform.released.orders.*", "platform.erased"],
    ],
    "control": ["platform.tenants.*", "$SRV.PING.tenants", "platform.alive.*"],
    "sys": [
        "$SYS.ACCOUNT.A1.CONNECT",
        "$SYS.ACCOUNT.A1.DISCONNECT",
        "$SYS.SERVER.N1.CLIENT.AUTH.ERR",
    ],
}
SUBSCRIBES_NOT = {
    "router": [
        *["tenant.>", "request.>", "_INBOX.>", "_MESH.>", ">", "$KV.>", "stats.>", ANOTHERS_INBOX],
        *["platform.>", "platform.tenants.create", "$SRV.>", "$SRV.PING.orders"],
    ],
    "service": [
        *["edge.>", "edge.acme.orders.place", "edge.*.*.*", "request.>", "tenant.>", "dead.>"],
        *["_INBOX.>", "_INBOX.acme.>", "_MESH.>", ">", "*.*.*.*", "$JS.>", "platform.>"],
        *["schedule.>", "schedule.*.*.*", "timer.>", "due.*.*.*", "stats.>", ANOTHERS_INBOX],
        *["request.*.*.*", "request.*.ledger.*", "platform.alive.*", "$SRV.>"],
        *["$KV.leases.ledger.*", "$KV.checkpoints.orders.*", "platform.released.ledger.*"],
    ],
    "control": [
        *[
            "edge.>",
            "edge.acme.orders.place",
            "edge.*.*.*",
            "tenant.>",
            "dead.>",
            "platform.>",
            ">",
        ],
        *["request.acme.orders.place", "_INBOX.>", "_MESH.>", ANOTHERS_INBOX],
    ],
    "sys": [
        ">",
        "$SYS.>",
        "$SYS.SERVER.>",
        "$SYS.SERVER.N1.STATSZ",
        "$SYS.ACCOUNT.>",
        "$SYS.REQ.>",
        "_INBOX.>",
        "_MESH.>",
        ANOTHERS_INBOX,
    ],
}
PUBLISHES = {
    "router": [
        "request.a.b.c",
        "_INBOX.a.x",
        ANOTHERS_INBOX,
        "platform.alive.router",
        "audit.a.b",
        "$JS.API.STREAM.MSG.GET.KV_keys",
    ],
    "service": [
        "$JS.API.STREAM.MSG.GET.KV_keys",
        *["request.a.b.c", "_INBOX.a.x", ANOTHERS_INBOX, "dead.a.orders.c"],
        *["platform.alive.orders", "platform.gone.orders", "platform.router.renew_context"],
        *["$SRV.PING.orders", "$KV.catalogue.orders.1.0.0", "$KV.state.a.orders.x"],
        *["schedule.a.orders.c", "timer.a.orders.c", "audit.a.b"],
        *["$KV.checkpoints.orders.3", "$KV.leases.orders.one", "platform.released.orders.3"],
        *["$JS.API.CONSUMER.CREATE.JOURNAL.x.journal.>", "$JS.API.STREAM.MSG.GET.JOURNAL"],
    ],
    "control": [
        *["$KV.tenants.acme", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.PURGE.DEAD"],
        "$KV.checkpoints.orders.3",
        *["platform.tenants.show", "tenant.a.b.c", "stats.tenants", "platform.erased"],
    ],
    "sys": [
        *["$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.PING"],
        *["$SYS.REQ.SERVER.N1.CONNZ", "$SYS.REQ.SERVER.N1.KICK"],
    ],
}
PUBLISHES_NOT = {
    "router": [
        *["schedule.a.b.c", "timer.a.b.c", "due.a.b.c", "stats.tenants", "platform.x.y"],
        *["edge.a.b.c", "dead.a.b.c", "$KV.tenants.acme", "$KV.plans.x", "request.a.b"],
        "$KV.keys.k",
        *["$JS.API.STREAM.PURGE.JOURNAL", "$JS.API.STREAM.DELETE.JOURNAL", "$JS.API.STREAM.LIST"],
        *["$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.JOURNAL", "$SYS.REQ.CLAIMS.UPDATE"],
        *["$JS.API.CONSUMER.CREATE.JOURNAL.x.journal.>", "$JS.API.STREAM.MSG.GET.JOURNAL"],
    ],
    "service": [
        *["edge.a.b.c", "request.a.b", "platform.x.y", "platform.context.mint", "platform.erased"],
        *["due.a.orders.c", "schedule.a.b", "$JS.API.STREAM.PURGE.SCHEDULES", "stats.tenants"],
        *["dead.a.b.c", "schedule.a.b.c", "$KV.state.a.b.c", "platform.alive.ledger"],
        *["audit.a", "audit.a.b.c", "$JS.API.DIRECT.GET.AUDIT", "$JS.API.STREAM.PURGE.AUDIT"],
        *["$JS.API.DIRECT.GET.SCHEDULES", "$JS.API.CONSUMER.CREATE.SCHEDULES.x"],
        *["$KV.tenants.acme", "$KV.plans.x", "$KV.keys.k", "$KV.checkpoints.ledger.3"],
        *["$KV.leases.ledger.one", "platform.released.ledger.3"],
        "$JS.API.STREAM.INFO.KV_tenants",
        *["$JS.API.STREAM.PURGE.JOURNAL", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.X"],
        *["$JS.API.CONSUMER.DURABLE.CREATE.JOURNAL.x", "$JS.API.CONSUMER.CREATE.JOURNAL"],
        *["$JS.API.CONSUMER.CREATE.JOURNAL.x", "$JS.API.CONSUMER.UNPIN.JOURNAL.x"],
        "$JS.ACK.JOURNAL.x.1.1.1.1.0",
        *["$JS.API.CONSUMER.CREATE.KV_tenants.x", "$JS.API.DIRECT.GET.KV_plans.x"],
        *["$JS.API.CONSUMER.LIST.JOURNAL", "$SYS.REQ.CLAIMS.UPDATE"],
    ],
    "control": [
        *["edge.a.b.c", "request.a.b.c", "_INBOX.a.x", "$KV.state.a.orders.x", "dead.a.b.c"],
        *["$KV.leases.orders.one", "platform.released.orders.3"],
        *["$JS.API.STREAM.CREATE.X", "$JS.ACK.JOURNAL.orders-0.1.1.1.1.0", "platform.x.y"],
    ],
    "sys": [
        *["$SYS.REQ.SERVER.N1.RELOAD", "$SYS.REQ.SERVER.N1.LDM", "$SYS.REQ.SERVER.N1.VARZ"],
        *["$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.ACCOUNT.A1.CLAIMS.LOOKUP"],
        *["$SYS.ACCOUNT.A1.DISCONNECT", "$SYS.ACCOUNT.A1.CLAIMS.UPDATE", "x", "_INBOX.x"],
    ],
}


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(role, subject) for role, subjects in table.items() for subject in subjects]


@pytest.mark.parametrize(("role", "subject"), cases(SUBSCRIBES))
async def test_a_role_subscribes(mesh: Mesh, role: str, subject: str) -> None:
    assert await (await mesh.role(role)).may_subscribe(subject)


@pytest.mark.parametrize(("role", "subject"), cases(SUBSCRIBES_NOT))
async def test_a_role_can_not_subscribe(mesh: Mesh, role: str, subject: str) -> None:
    assert not await (await mesh.role(role)).may_subscribe(subject)


@pytest.mark.parametrize(("role", "subject"), cases(SUBSCRIBES_NOT))
async def test_a_queue_is_no_way_round(mesh: Mesh, role: str, subject: str) -> None:
    assert not await (await mesh.role(role)).may_subscribe(subject, queue="router")


@pytest.mark.parametrize(("role", "subject"), cases(PUBLISHES))
async def test_a_role_publishes(mesh: Mesh, role: str, subject: str) -> None:
    assert await (await mesh.role(role)).may_publish(subject)


@pytest.mark.parametrize(("role", "subject"), cases(PUBLISHES_NOT))
async def test_a_role_can_not_publish(mesh: Mesh, role: str, subject: str) -> None:
    assert not await (await mesh.role(role)).may_publish(subject)


@pytest.mark.parametrize("role", ["router", "service", "control"])
async def test_a_mesh_user_has_its_own_inbox(mesh: Mesh, role: str) -> None:
    client = await mesh.role(role)
    assert await client.may_subscribe(f"_MESH.{client.public_key}.>")


@pytest.mark.parametrize("role", ["router", "service"])
async def test_the_inbox_of_another_replica_is_closed(mesh: Mesh, role: str) -> None:
    other = await mesh.role(role)
    assert not await (await mesh.role(role)).may_subscribe(f"_MESH.{other.public_key}.>")


async def test_who_sees_all_of_the_mesh_sees_nothing_of_the_edge(mesh: Mesh) -> None:
    root, acme = await mesh.root(), await mesh.tenant("acme")
    everything = await root.subscribe("tenant.>")
    await acme.nats.publish("tenant.acme.orders.place", b"not admitted")
    await acme.settle()
    await root.nats.publish("tenant.marker", b"")
    assert (await everything.next_msg(PATIENCE)).subject == "tenant.marker"


# JetStream


@pytest.fixture
async def control(mesh: Mesh) -> None:
    """Makes what JetStream holds in a mesh."""
    js = (await mesh.root()).nats.jetstream()
    transform = SubjectTransform(
        src="tenant.*.*.*", dest="journal.3.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
    )
    await js.add_stream(
        StreamConfig(
            name="JOURNAL",
            subjects=["tenant.*.*.*"],
            allow_direct=True,
            subject_transform=transform,
        )
    )
    for name, key in BUCKETS.items():
        bucket = await js.create_key_value(bucket=name, history=5, direct=True)
        await bucket.put(key, name.encode())


READS = {
    "router": ["keys"],
    "service": ["catalogue", "keys", "state", "cursors", "replays", "checkpoints", "leases"],
}
WATCHES = {
    "router": [("tenants", ">"), ("plans", ">"), ("catalogue", ">"), ("keys", ">")],
    "service": [
        *[
            ("keys", ">"),
            ("catalogue", ">"),
            ("cursors", "orders.*"),
            ("replays", "orders.*"),
            ("leases", "orders.*"),
        ],
        ("suspended", ">"),
    ],
}
READS_NOT = {"router": ["state"], "service": ["tenants", "plans"]}


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(("role", "bucket"), cases(READS))
async def test_a_role_gets_a_key(mesh: Mesh, role: str, bucket: str) -> None:
    path = f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{BUCKETS[bucket]}"
    answer = await (await mesh.role(role)).nats.request(path, timeout=PATIENCE)
    assert answer.data == bucket.encode()


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(
    ("role", "bucket", "keys"), [(role, *each) for role in WATCHES for each in WATCHES[role]]
)
async def test_a_role_watches_a_bucket(mesh: Mesh, role: str, bucket: str, keys: str) -> None:
    client = await mesh.role(role)
    subject = f"$KV.{bucket}.{keys}"
    config = {"name": "w", "filter_subject": subject, "ack_policy": "none"}
    made = await client.nats.request(
        f"$JS.API.CONSUMER.CREATE.KV_{bucket}.w.{subject}",
        json.dumps({"stream_name": f"KV_{bucket}", "config": config}).encode(),
        timeout=PATIENCE,
    )
    assert json.loads(made.data)["num_pending"] > 0
    inbox = await client.subscribe(f"_MESH.{client.public_key}.w")
    await client.nats.publish(f"$JS.API.CONSUMER.MSG.NEXT.KV_{bucket}.w", b"", reply=inbox.subject)
    assert (await inbox.next_msg(PATIENCE)).data == bucket.encode()
    await client.nats.request(f"$JS.API.CONSUMER.DELETE.KV_{bucket}.w", timeout=PATIENCE)
    assert client.errors == []


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(("role", "bucket"), cases(READS_NOT))
async def test_a_role_can_not_open_a_bucket(mesh: Mesh, role: str, bucket: str) -> None:
    client = await mesh.role(role)
    assert not await client.may_publish(f"$JS.API.STREAM.INFO.KV_{bucket}")


@pytest.mark.usefixtures("control")
async def test_the_router_reads_a_message_of_the_journal(mesh: Mesh) -> None:
    router = await mesh.role("router")
    ack = await router.nats.jetstream().publish("tenant.acme.orders.placed", b"x")
    ask = json.dumps({"seq": ack.seq}).encode()
    found = await router.nats.request("$JS.API.DIRECT.GET.JOURNAL", ask, timeout=PATIENCE)
    assert found.headers is not None
    assert found.headers["Nats-Subject"] == "journal.3.acme.orders.placed"


@pytest.mark.usefixtures("control")
async def test_a_service_reads_the_journal(mesh: Mesh) -> None:
    service = await mesh.role("service")
    ack = await service.nats.jetstream().publish("tenant.acme.orders.placed", b"x")
    config = {
        "name": "reader-1",
        "filter_subject": "journal.>",
        "ack_policy": "none",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": ack.seq,
    }
    made = await service.nats.request(
        "$JS.API.CONSUMER.CREATE.JOURNAL.reader-1.journal.>",
        json.dumps({"stream_name": "JOURNAL", "config": config}).encode(),
    )
    assert json.loads(made.data)["num_pending"] == 1
    inbox = await service.subscribe(f"_MESH.{service.public_key}.r")
    path = "$JS.API.CONSUMER.MSG.NEXT.JOURNAL.reader-1"
    await service.nats.publish(path, b"", reply=inbox.subject)
    message = await inbox.next_msg(PATIENCE)
    assert (message.subject, message.data) == ("journal.3.acme.orders.placed", b"x")
    gone = await service.nats.request("$JS.API.CONSUMER.DELETE.JOURNAL.reader-1")
    assert json.loads(gone.data)["success"]


@pytest.mark.usefixtures("control")
async def test_a_service_asks_what_comes_next_of_a_tenant(mesh: Mesh) -> None:
    service = await mesh.role("service")
    ack = await service.nats.jetstream().publish("tenant.acme.orders.placed", b"x")
    wish = json.dumps({"seq": ack.seq, "next_by_subj": "journal.3.acme.>"}).encode()
    found = await service.nats.request("$JS.API.STREAM.MSG.GET.JOURNAL", wish)
    assert json.loads(found.data)["message"]["seq"] == ack.seq
