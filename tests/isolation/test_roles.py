"""What a process of the mesh that was taken over can do: with the credentials of its role, tried
by hand and not by way of the library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from tenantry import Context, Service
from tenantry.bus import Bus, api
from tenantry.bus import jetstream as js
from tenantry.delivery.upgrade import pending
from tenantry.errors import SetupError
from tenantry.operator import OperatorHome
from tenantry.operator import home as operator_home
from tenantry.runtime import Worker
from tests.former import consumer_config
from tests.integration.operator.clients import Client
from tests.integration.operator.clients import Mesh as Roles
from tests.isolation import permissions
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import PATIENCE, Mesh, Program

SOMEBODY = "_MESH.UBIZF6LJ5WEZ4PZQZGDPPWEAPRL5MFNVZLTLGTGFYKYVPBKJGZ6DVJ5M"
STREAMS = ("JOURNAL", "DEAD", "SCHEDULES", "TIMERS", "KV_tenants", "KV_state", "KV_keys")
ADMIN = (
    *("PURGE", "DELETE", "UPDATE", "CREATE", "SNAPSHOT", "RESTORE", "MSG.DELETE"),
    *("LEADER.STEPDOWN", "PEER.REMOVE"),
)


@pytest.fixture
async def roles(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Roles]:
    """Connects plain clients in any role."""
    async with AsyncExitStack() as stack:
        yield Roles(mesh.home, mesh.url, tmp_path, stack)


@pytest.fixture
async def orders(roles: Roles) -> Client:
    """A hostile process with credentials for the service orders."""
    return await roles.role("service", "orders")


@pytest.fixture
async def both(roles: Roles) -> Client:
    """One for orders and ledger."""
    return await roles.role("service", "orders", "ledger")


async def ask(client: Client, subject: str, body: Any = b"") -> dict[str, Any] | None:
    """JetStream's answer; None where the server does not let the question through."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    client.errors.clear()
    try:
        answer = await client.nats.request(f"$JS.API.{subject}", data, timeout=0.5)
    except (NoAnswer, NoRespondersError):
        assert any("permissions violation" in error for error in client.errors), subject
        return None
    return dict(json.loads(answer.data))


def made_of(config: dict[str, Any]) -> dict[str, Any]:
    """What asks for a consumer on the journal."""
    return {"stream_name": "JOURNAL", "config": config}


@pytest.fixture
async def queue(control: Bus) -> AsyncIterator[str]:
    """A consumer that somebody else made, with acknowledgements."""
    config = {"name": "queue", "durable_name": "queue", "ack_policy": "explicit"}
    await js.ensure_consumer(control, "JOURNAL", {**config, "filter_subjects": ["journal.>"]})
    yield "queue"
    await api(control, "CONSUMER.DELETE.JOURNAL.queue")


# --- what each role may do -----------------------------------------------------------------------


def test_no_role_may_do_more_than_is_listed() -> None:
    """`python -m tests.isolation.permissions` writes the list anew: look at what has grown."""
    assert permissions.listing().splitlines() == permissions.LISTING.read_text().splitlines()


def test_each_line_for_one_service_is_there_for_the_other() -> None:
    lines = [line for line in permissions.listing().splitlines() if line[:1] != "#"]
    of_orders = {line.replace("orders", "ledger") for line in lines if "orders" in line}
    assert of_orders == {line for line in lines if "ledger" in line}


# --- 80: listening -------------------------------------------------------------------------------


@cannot(80, Layer.SERVER)
@pytest.mark.parametrize(
    "subject",
    [
        *("edge.>", "edge.*.orders.*", "edge.acme.orders.place", ">", "*.>", "*.*.orders.*"),
        *("request.*.ledger.*", "request.*.*.*", "request.acme.ledger.total", "request.>"),
        *("tenant.*.orders.*", "journal.>", "dead.*.orders.*", "$KV.>", "platform.>"),
        *("platform.router.renew_context", "platform.tenants.create", "platform.alive.ledger"),
        *("$SRV.>", "$SRV.PING.ledger", "$JS.>", "$JS.EVENT.>", "$JS.API.>"),
        *("$KV.leases.ledger.*", "$KV.leases.>", "$KV.checkpoints.orders.*"),
        "platform.released.ledger.*",
    ],
)
async def test_a_service_hears_nothing_that_is_not_its_own(orders: Client, subject: str) -> None:
    assert not await orders.may_subscribe(subject)
    assert not await orders.may_subscribe(subject, queue="ledger")


@can(80)
@pytest.mark.parametrize("subject", ["request.*.orders.*", "request.*.orders.place", "$SRV.PING"])
async def test_a_service_hears_its_own_requests(orders: Client, subject: str) -> None:
    assert await orders.may_subscribe(subject, queue="orders")


@can(80)
@pytest.mark.parametrize("subject", ["$KV.leases.orders.*", "platform.released.orders.*"])
async def test_a_service_hears_of_its_own_instances(orders: Client, subject: str) -> None:
    assert await orders.may_subscribe(subject)


@can(80)
async def test_a_process_of_two_services_hears_the_requests_of_both(both: Client) -> None:
    assert await both.may_subscribe("request.*.orders.*")
    assert await both.may_subscribe("request.*.ledger.*")


@can(80)
async def test_a_service_sends_requests_and_commands_to_others(orders: Client) -> None:
    assert await orders.may_publish("request.acme.ledger.total")
    assert await orders.may_publish("tenant.acme.ledger.close")


# --- 81: signing ---------------------------------------------------------------------------------


@cannot(81, Layer.SERVER)
@pytest.mark.parametrize(
    "subject",
    [
        *("platform.tenants.issue_context", "platform.tenants.issue_credentials"),
        *("platform.tenants.create", "$KV.keys.context.mine", "$KV.keys.x"),
        *("$JS.API.STREAM.MSG.DELETE.KV_keys", "$SYS.REQ.CLAIMS.UPDATE"),
    ],
)
async def test_a_service_asks_for_no_signature_and_lays_down_no_key(
    orders: Client, subject: str
) -> None:
    assert not await orders.may_publish(subject)


@can(81)
async def test_a_service_reads_the_keys_and_has_its_contexts_renewed(orders: Client) -> None:
    assert await orders.may_publish("platform.router.renew_context")
    watch = {"name": "w", "filter_subject": "$KV.keys.>", "ack_policy": "none"}
    made = await ask(
        orders,
        "CONSUMER.CREATE.KV_keys.w.$KV.keys.>",
        {"stream_name": "KV_keys", "config": watch},
    )
    assert made is not None
    assert made["num_pending"] > 0
    assert await ask(orders, "CONSUMER.DELETE.KV_keys.w") is not None


# --- 82: consumers -------------------------------------------------------------------------------


@cannot(82, Layer.SERVER)
@pytest.mark.parametrize(
    "path",
    [
        *("LIST.JOURNAL", "NAMES.JOURNAL", "CREATE.JOURNAL", "CREATE.JOURNAL.queue"),
        *("DURABLE.CREATE.JOURNAL.queue", "RESET.JOURNAL.queue", "UNPIN.JOURNAL.queue"),
        *("PAUSE.JOURNAL.queue", "LEADER.STEPDOWN.JOURNAL.queue"),
        *("CREATE.DEAD.x", "CREATE.DEAD.x.dead.>", "INFO.DEAD.tenants-letters"),
        *("MSG.NEXT.DEAD.tenants-letters", "DELETE.DEAD.tenants-letters"),
    ],
)
async def test_a_service_neither_lists_nor_administers_consumers(orders: Client, path: str) -> None:
    config = {"name": "queue", "durable_name": "queue"}
    assert await ask(orders, f"CONSUMER.{path}", made_of(config)) is None


@cannot(82, Layer.SERVER)
async def test_a_service_acknowledges_nothing(
    orders: Client, roles: Roles, control: Bus, acme: Program, queue: str
) -> None:
    await acme.client.publish("notes.remember", {"text": "x"})
    stream = (await roles.root()).nats.jetstream()
    [message] = await (await stream.pull_subscribe_bind(queue, "JOURNAL")).fetch(1)
    assert not await orders.may_publish(message.reply)
    info = await api(control, f"CONSUMER.INFO.JOURNAL.{queue}")
    assert info["num_ack_pending"] > 0


@cannot(82, Layer.SERVER)
async def test_a_service_makes_no_consumer_that_another_would_go_on_from(
    orders: Client, control: Bus
) -> None:
    """The upgrade takes a consumer of the version before for the place where a service stands."""
    config = consumer_config("ledger", 7, ("ledger", "place"))
    path = "CONSUMER.CREATE.JOURNAL.ledger-7.journal.>"
    answer = await ask(orders, path, made_of(config))
    assert answer is not None
    assert answer["error"]["code"] == 400
    single = {key: value for key, value in config.items() if key != "filter_subjects"}
    made = await ask(orders, path, made_of(single | {"filter_subject": "journal.>"}))
    assert made is not None
    assert made["name"] == "ledger-7"
    assert not await pending(control, "ledger", 7)
    await api(control, "CONSUMER.DELETE.JOURNAL.ledger-7")


@can(82)
async def test_a_consumer_of_the_version_before_is_gone_on_from(control: Bus) -> None:
    await js.ensure_consumer(control, "JOURNAL", consumer_config("ledger", 8, ("ledger", "place")))
    assert await pending(control, "ledger", 8)
    await api(control, "CONSUMER.DELETE.JOURNAL.ledger-8")


@can(82)
async def test_a_service_reads_the_journal(orders: Client, acme: Program) -> None:
    await acme.client.publish("notes.remember", {"text": "x"})
    config = {"name": "reader-x", "filter_subject": "journal.>", "ack_policy": "none"}
    made = await ask(orders, "CONSUMER.CREATE.JOURNAL.reader-x.journal.>", made_of(config))
    assert made is not None
    assert made["num_pending"] > 0
    inbox = await orders.subscribe(f"_MESH.{orders.public_key}.r")
    path = "$JS.API.CONSUMER.MSG.NEXT.JOURNAL.reader-x"
    await orders.nats.publish(path, b"", reply=inbox.subject)
    assert (await inbox.next_msg(PATIENCE)).subject.startswith("journal.")
    assert await ask(orders, "CONSUMER.INFO.JOURNAL.reader-x") is not None
    assert await ask(orders, "CONSUMER.DELETE.JOURNAL.reader-x") is not None


@can(82)
async def test_a_service_asks_the_leader_what_comes_next_of_a_tenant(
    orders: Client, acme: Program
) -> None:
    await acme.client.publish("notes.remember", {"text": "x"})
    wish = {"seq": 1, "next_by_subj": f"journal.*.{acme.id}.>"}
    found = await ask(orders, "STREAM.MSG.GET.JOURNAL", wish)
    assert found is not None
    assert acme.id in found["message"]["subject"]


# --- 83: state -----------------------------------------------------------------------------------


@cannot(83, Layer.SERVER)
@pytest.mark.parametrize(
    "subject",
    [
        *("$KV.state.acme.ledger.total", "$KV.state.acme.ledger./1.total", "$KV.state.acme.x"),
        *("$KV.cursors.ledger.acme", "$KV.replays.ledger.acme", "$KV.redrives.acme.1"),
        "$JS.API.DIRECT.GET.KV_state.$KV.state.acme.ledger.total",
        *("$JS.API.DIRECT.GET.KV_state", "$JS.API.STREAM.MSG.GET.KV_state"),
        *("$JS.API.STREAM.INFO.KV_state", "$JS.API.STREAM.PURGE.KV_state"),
        "$JS.API.CONSUMER.CREATE.KV_state",
        "$JS.API.CONSUMER.CREATE.KV_state.r",
        "$JS.API.CONSUMER.CREATE.KV_state.r.$KV.state.>",
        "$JS.API.CONSUMER.CREATE.KV_state.r.$KV.state.acme.>",
        "$JS.API.CONSUMER.CREATE.KV_state.r.$KV.state.*.*.>",
        "$JS.API.CONSUMER.CREATE.KV_state.r.$KV.state.*.ledger.>",
        "$JS.API.CONSUMER.CREATE.KV_cursors.r.$KV.cursors.>",
        *("$KV.checkpoints.ledger.3", "$KV.leases.ledger.one", "platform.released.ledger.3"),
        "$JS.API.DIRECT.GET.KV_checkpoints.$KV.checkpoints.ledger.3",
        "$JS.API.DIRECT.GET.KV_leases.$KV.leases.ledger.one",
        *("$JS.API.DIRECT.GET.KV_checkpoints", "$JS.API.STREAM.MSG.GET.KV_leases"),
        *("$JS.API.STREAM.PURGE.KV_checkpoints", "$JS.API.STREAM.PURGE.KV_leases"),
        "$JS.API.CONSUMER.CREATE.KV_checkpoints.r.$KV.checkpoints.orders.*",
        "$JS.API.CONSUMER.CREATE.KV_leases.r.$KV.leases.>",
        "$JS.API.CONSUMER.CREATE.KV_leases.r.$KV.leases.ledger.*",
        "$JS.API.CONSUMER.CREATE.KV_replays.r.$KV.replays.ledger.*",
    ],
)
async def test_a_service_can_not_reach_the_state_of_another(orders: Client, subject: str) -> None:
    assert not await orders.may_publish(subject)


@cannot(83, Layer.SERVER)
@pytest.mark.parametrize(
    "config",
    [
        {"name": "r", "filter_subject": "$KV.state.*.ledger.>"},
        {"name": "r", "filter_subjects": ["$KV.state.*.ledger.>"]},
        {"name": "r", "filter_subjects": ["$KV.state.*.orders.>", "$KV.state.*.ledger.>"]},
        {"name": "r"},
    ],
)
async def test_a_filter_is_held_to_the_one_that_the_server_has_allowed(
    orders: Client, config: dict[str, Any]
) -> None:
    answer = await ask(
        orders,
        "CONSUMER.CREATE.KV_state.r.$KV.state.*.orders.>",
        {"stream_name": "KV_state", "config": config},
    )
    assert answer is not None
    assert answer["error"]["code"] == 400


@cannot(83, Layer.SERVER)
async def test_a_body_asks_for_no_other_key_than_the_subject(orders: Client, control: Bus) -> None:
    await js.store(control, "$KV.state.acme.ledger.total", b'"secret"')
    await js.store(control, "$KV.state.acme.orders.mine", b'"own"')
    path = "$JS.API.DIRECT.GET.KV_state.$KV.state.acme.orders.mine"
    for wish in ({"last_by_subj": "$KV.state.acme.ledger.total"}, {"seq": 1}):
        answer = await orders.nats.request(path, json.dumps(wish).encode())
        assert b"secret" not in answer.data


@can(83)
async def test_a_service_reads_and_writes_its_own_state(orders: Client, control: Bus) -> None:
    await orders.nats.request("$KV.state.acme.orders.own", b"42")
    await orders.nats.request("$KV.state.acme.orders./1.own", b"43")
    for key, value in (("own", b"42"), ("./1.own", b"43")):
        path = f"$JS.API.DIRECT.GET.KV_state.$KV.state.acme.orders.{key.lstrip('.')}"
        assert (await orders.nats.request(path)).data == value
    assert await orders.may_publish("$KV.cursors.orders.acme")
    assert await orders.may_publish("$KV.replays.orders.acme")
    assert await orders.may_publish("platform.released.orders.3")


@can(83)
@pytest.mark.parametrize("key", ["checkpoints.orders.3", "leases.orders.one"])
async def test_a_service_reads_and_writes_its_checkpoints_and_leases(
    orders: Client, key: str
) -> None:
    await orders.nats.request(f"$KV.{key}", b"{}")
    bucket = key.partition(".")[0]
    found = await orders.nats.request(f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{key}")
    assert found.data == b"{}"


@can(83)
async def test_a_service_lists_its_leases(orders: Client) -> None:
    await orders.nats.request("$KV.leases.orders.listed", b"{}")
    made = await ask(
        orders,
        "CONSUMER.CREATE.KV_leases.r.$KV.leases.orders.*",
        {
            "stream_name": "KV_leases",
            "config": {"name": "r", "filter_subject": "$KV.leases.orders.*", "ack_policy": "none"},
        },
    )
    assert made is not None
    assert made["num_pending"] > 0
    assert await ask(orders, "CONSUMER.DELETE.KV_leases.r") is not None


# --- 84: what it leaves behind -------------------------------------------------------------------


@cannot(84, Layer.SERVER)
@pytest.mark.parametrize(
    "subject",
    [
        *(
            "dead.acme.ledger.1",
            "schedule.acme.ledger.x",
            "timer.acme.ledger.x",
            "due.acme.orders.x",
        ),
        *("$KV.catalogue.ledger.1.0.0", "platform.alive.ledger", "platform.gone.ledger"),
        *("platform.alive.router", "platform.gone.router", "$JS.API.DIRECT.GET.DEAD"),
        *("$JS.API.STREAM.MSG.GET.DEAD", "$JS.API.STREAM.MSG.DELETE.DEAD"),
        "$JS.API.DIRECT.GET.DEAD.dead.acme.orders.1",
        "$JS.API.CONSUMER.CREATE.DEAD.x.dead.>",
        "$JS.API.DIRECT.GET.SCHEDULES.schedule.acme.ledger.x",
        "$JS.API.DIRECT.GET.KV_catalogue.$KV.catalogue.ledger.1.0.0",
    ],
)
async def test_a_service_can_not_reach_what_another_leaves(orders: Client, subject: str) -> None:
    assert not await orders.may_publish(subject)


@can(84)
@pytest.mark.parametrize(
    "subject",
    [
        *("dead.acme.orders.1", "schedule.acme.orders.x", "$KV.catalogue.orders.1.0.0"),
        *("platform.alive.orders", "platform.gone.orders"),
        "$JS.API.DIRECT.GET.KV_catalogue.$KV.catalogue.orders.1.0.0",
        # What all declare: no handler sends to what is not there.
        "$JS.API.CONSUMER.CREATE.KV_catalogue.x.$KV.catalogue.>",
    ],
)
async def test_a_service_leaves_its_own(roles: Roles, subject: str) -> None:
    client = await roles.role("service", "orders")
    assert await client.may_publish(subject)


# --- 85: the tenants' records --------------------------------------------------------------------


@cannot(85, Layer.SERVER)
@pytest.mark.parametrize("bucket", ["tenants", "plans", "usage", "volumes", "redrives"])
@pytest.mark.parametrize(
    "path",
    [
        *("STREAM.INFO.KV_{0}", "STREAM.MSG.GET.KV_{0}", "DIRECT.GET.KV_{0}"),
        *("DIRECT.GET.KV_{0}.$KV.{0}.acme", "CONSUMER.CREATE.KV_{0}", "CONSUMER.LIST.KV_{0}"),
        *("CONSUMER.CREATE.KV_{0}.x.$KV.{0}.>", "CONSUMER.MSG.NEXT.KV_{0}.tenants-events"),
    ],
)
async def test_a_service_reads_nothing_of_the_tenants_records(
    orders: Client, bucket: str, path: str
) -> None:
    assert await ask(orders, path.format(bucket)) is None


@cannot(85, Layer.SERVER)
@pytest.mark.parametrize("what", ["tenants.show", "tenants.list", "tenants.plans"])
async def test_a_service_asks_the_control_plane_for_none_of_them(orders: Client, what: str) -> None:
    assert not await orders.may_publish(f"platform.{what}")


@can(85)
async def test_the_router_reads_tenants_and_the_control_plane_writes_them(roles: Roles) -> None:
    router, control = await roles.role("router"), await roles.role("control")
    watch = {"name": "w", "filter_subject": "$KV.tenants.>", "ack_policy": "none"}
    made = await ask(
        router,
        "CONSUMER.CREATE.KV_tenants.w.$KV.tenants.>",
        {"stream_name": "KV_tenants", "config": watch},
    )
    assert made is not None
    assert made["name"] == "w"
    assert await ask(router, "CONSUMER.DELETE.KV_tenants.w") is not None
    assert not await router.may_publish("$KV.tenants.acme")
    assert not await router.may_publish("$KV.plans.standard")
    assert await control.may_publish("$KV.tenants.nobody-at-all")


# --- 86: administration of JetStream -------------------------------------------------------------


@cannot(86, Layer.SERVER)
@pytest.mark.parametrize("role", ["service", "router"])
@pytest.mark.parametrize("stream", STREAMS)
async def test_neither_services_nor_routers_administer_a_stream(
    roles: Roles, role: str, stream: str
) -> None:
    client = await roles.role(role)
    for verb in ADMIN:
        assert not await client.may_publish(f"$JS.API.STREAM.{verb}.{stream}"), verb


@cannot(86, Layer.SERVER)
@pytest.mark.parametrize("role", ["service", "router"])
@pytest.mark.parametrize(
    "path", ["INFO", "STREAM.LIST", "STREAM.NAMES", "STREAM.CREATE.MINE", "SERVER.REMOVE"]
)
async def test_neither_makes_or_lists_streams(roles: Roles, role: str, path: str) -> None:
    assert await ask(await roles.role(role), path) is None


@cannot(86, Layer.SERVER)
@pytest.mark.parametrize("stream", ["MINE", "EDGE", "JOURNAL2", "OBJ_x", "KV_mine"])
async def test_control_has_no_stream_but_those_of_the_mesh(roles: Roles, stream: str) -> None:
    control = await roles.role("control")
    assert not await control.may_publish(f"$JS.API.STREAM.CREATE.{stream}")


@can(86)
@pytest.mark.parametrize("stream", STREAMS)
async def test_control_administers_the_streams_of_the_mesh(roles: Roles, stream: str) -> None:
    answer = await ask(await roles.role("control"), f"STREAM.INFO.{stream}")
    assert answer is not None
    assert answer["config"]["name"] == stream


# --- 87: where nobody but its owner listens ------------------------------------------------------


@cannot(87, Layer.SERVER)
@pytest.mark.parametrize("role", ["service", "router", "control", "sys"])
@pytest.mark.parametrize(
    "subject",
    [
        *("$SYS.>", "$SYS.ACCOUNT.>", "_MESH.>", "_MESH.*.>", f"{SOMEBODY}.>", f"{SOMEBODY}.1"),
        *("_INBOX.>", "_INBOX.acme.>", "_INBOX.*.1", "_R_.>"),
    ],
)
async def test_no_role_hears_sys_or_the_inbox_of_another(
    roles: Roles, role: str, subject: str
) -> None:
    assert not await (await roles.role(role)).may_subscribe(subject)


@cannot(87, Layer.SERVER)
@pytest.mark.parametrize(
    "subject", ["tenant.>", "request.>", "dead.>", "edge.>", "edge.acme.orders.place", "$KV.>", ">"]
)
async def test_control_hears_no_tenant(roles: Roles, subject: str) -> None:
    assert not await (await roles.role("control")).may_subscribe(subject)


@cannot(87, Layer.SERVER)
@pytest.mark.parametrize("role", ["service", "router", "control"])
async def test_no_role_of_the_mesh_reaches_sys(roles: Roles, role: str) -> None:
    client = await roles.role(role)
    for subject in ("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO"):
        assert not await client.may_publish(subject), subject


@cannot(87, Layer.SERVER)
async def test_control_does_nothing_in_the_place_of_a_service(roles: Roles) -> None:
    control = await roles.role("control")
    assert not await control.may_publish("$JS.ACK.JOURNAL.ledger-0.1.1.1.1.0")
    assert not await control.may_publish("$KV.leases.ledger.one")
    assert not await control.may_publish("platform.released.ledger.3")
    assert not await control.may_publish("request.acme.ledger.total")
    assert not await control.may_publish("$KV.state.acme.ledger.total")


@can(87)
@pytest.mark.parametrize("role", ["service", "router", "control", "sys"])
async def test_each_role_has_an_inbox_of_its_own(roles: Roles, role: str) -> None:
    client = await roles.role(role)
    assert await client.may_subscribe(f"_MESH.{client.public_key}.>")


# --- 88: credentials -----------------------------------------------------------------------------


@cannot(88, Layer.CONTROL)
@pytest.mark.parametrize("service", ["*", ">", "a.b", "", "Orders", "orders ", "{{tag(x)}}", "a-0"])
def test_no_credentials_are_issued_for_a_wildcard(mesh: Mesh, service: str) -> None:
    with pytest.raises(SetupError, match="is not a valid name of a service"):
        mesh.home.issue_role("service", "x", services=[service])


@cannot(88, Layer.CONTROL)
def test_no_credentials_are_issued_for_no_service(mesh: Mesh) -> None:
    with pytest.raises(SetupError, match="for services that are named"):
        mesh.home.issue_role("service", "x")


@cannot(88, Layer.SERVER, without=Layer.CONTROL)
@pytest.mark.parametrize(
    "subject",
    [
        *("$KV.state.acme.orders.x", "$KV.state.acme..x", "dead.acme.orders.1"),
        *("$KV.checkpoints.orders.3", "$KV.checkpoints..3", "$KV.leases.orders.one"),
        *("platform.alive.orders", "$KV.catalogue.orders.1.0.0"),
    ],
)
async def test_credentials_that_name_no_service_open_none(
    mesh: Mesh, roles: Roles, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    monkeypatch.setattr(operator_home, "_checked", lambda *_: [])
    nobody = await roles.connect(mesh.home.issue_role("service", "x"))
    assert not await nobody.may_publish(subject)
    assert not await nobody.may_subscribe("request.*.orders.*")


@can(88)
def test_credentials_are_issued_for_services_that_are_named(mesh: Mesh) -> None:
    assert mesh.home.issue_role("service", "x", services=["orders", "ledger"])


async def _nothing(_ctx: Context) -> None:
    """Do nothing."""


async def test_a_worker_says_at_once_that_its_credentials_are_for_another(mesh: Mesh) -> None:
    creds = mesh.home.service_creds(["orders"])
    service = Service("ledger", version="1.0.0")
    service.request("total")(_nothing)
    worker = Worker([service], servers=mesh.url, creds=creds)
    with pytest.raises(SetupError) as caught:
        await worker.run(asyncio.Event())
    assert "holds credentials for orders, not for ledger" in caught.value.message
    assert "--service ledger --service orders" in (caught.value.hint or "")


# --- what is left --------------------------------------------------------------------------------


async def test_jetstream_still_answers_wherever_it_is_told(orders: Client, own_mesh: Mesh) -> None:
    """Decision 5 tells of it. When this fails nats-server has closed it: tell that there."""
    home = OperatorHome.load(own_mesh.home.path)
    text = home.issue_role("service", "x", services=["orders"])
    creds = own_mesh.folder / "hostile.creds"
    creds.write_text(text)
    async with (
        await Bus.connect(own_mesh.url, creds=creds) as hostile,
        await own_mesh.insider("root") as root,
    ):
        await js.store(hostile, "$KV.state.acme.orders.x", msgspec.json.encode({"evil": 1}))
        ask_for = "$JS.API.DIRECT.GET.KV_state.$KV.state.acme.orders.x"
        await hostile.publish(ask_for, reply="$KV.usage.acme")
        await hostile.flush()
        await asyncio.sleep(0.2)
        found = await root.call("$JS.API.DIRECT.GET.KV_usage.$KV.usage.acme")
        assert b"evil" in found.data
