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

from tenantry import Service
from tenantry.bus import Bus, api
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import CONSUMER_NOT_FOUND
from tenantry.errors import JetStreamError, SetupError
from tenantry.operator import OperatorHome
from tenantry.operator import home as operator_home
from tenantry.runtime import Worker
from tenantry.runtime.journal import lane_config
from tests.integration.operator.clients import Client
from tests.integration.operator.clients import Mesh as Roles
from tests.isolation import permissions
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program

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


def lane(service: str, partition: int = 0) -> dict[str, Any]:
    """What makes the consumer of a lane."""
    config = lane_config(service, "1.0.0", partition, [(service, "place"), ("notes", "noted")])
    return {"stream_name": "JOURNAL", "config": config}


async def _exists(control: Bus, consumer: str) -> bool:
    try:
        await api(control, f"CONSUMER.INFO.JOURNAL.{consumer}")
    except JetStreamError as error:
        if error.err_code == CONSUMER_NOT_FOUND:
            return False
        raise
    return True


@pytest.fixture
async def ledger_lane(control: Bus) -> str:
    """The consumer of a lane of another service, with something in it."""
    config = {"name": "ledger-0", "durable_name": "ledger-0", "ack_policy": "explicit"}
    await js.ensure_consumer(control, "JOURNAL", {**config, "filter_subjects": ["journal.>"]})
    return "ledger-0"


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
        *("CREATE.JOURNAL.ledger-0", "CREATE.JOURNAL.ledger-0.journal.>", "CREATE.JOURNAL"),
        *("DURABLE.CREATE.JOURNAL.ledger-0", "MSG.NEXT.JOURNAL.ledger-0", "RESET.JOURNAL.ledger-0"),
        *("UNPIN.JOURNAL.ledger-0", "DELETE.JOURNAL.ledger-0", "PAUSE.JOURNAL.ledger-0"),
        *("INFO.JOURNAL.ledger-0", "LIST.JOURNAL", "NAMES.JOURNAL", "CREATE.DEAD.orders-0"),
        *("CREATE.JOURNAL.ledger-read-0.journal.>", "DELETE.JOURNAL.ledger-read-0"),
        *("MSG.NEXT.JOURNAL.orders", "CREATE.JOURNAL.orders", "CREATE.JOURNAL.orders-16"),
    ],
)
async def test_a_service_touches_no_consumer_of_another(
    orders: Client, control: Bus, ledger_lane: str, path: str
) -> None:
    assert await ask(orders, f"CONSUMER.{path}", lane("ledger")) is None
    assert await _exists(control, ledger_lane)


@cannot(82, Layer.SERVER)
async def test_a_consumer_of_another_can_not_be_made_under_ones_own_name(
    orders: Client, control: Bus
) -> None:
    await _forget(control, "ledger-7")
    answer = await ask(orders, "CONSUMER.CREATE.JOURNAL.orders-7", lane("ledger", 7))
    assert answer is not None
    assert "does not match" in answer["error"]["description"]
    assert not await _exists(control, "ledger-7")


@cannot(82, Layer.SERVER)
async def test_a_service_acknowledges_nothing_for_another(
    orders: Client, roles: Roles, control: Bus, acme: Program, ledger_lane: str
) -> None:
    await acme.client.publish("notes.remember", {"text": "x"})
    stream = (await roles.root()).nats.jetstream()
    [message] = await (await stream.pull_subscribe_bind(ledger_lane, "JOURNAL")).fetch(1)
    assert not await orders.may_publish(message.reply)
    info = await api(control, f"CONSUMER.INFO.JOURNAL.{ledger_lane}")
    assert info["num_ack_pending"] > 0


@can(82)
async def test_a_service_makes_pulls_acknowledges_and_unpins_its_own(
    orders: Client, control: Bus, acme: Program
) -> None:
    made = await ask(orders, "CONSUMER.CREATE.JOURNAL.orders-3", lane("orders", 3))
    assert made is not None
    assert made["name"] == "orders-3"
    for path, body in (("INFO", b""), ("UNPIN", {"group": "lane"})):
        answer = await ask(orders, f"CONSUMER.{path}.JOURNAL.orders-3", body)
        assert answer is not None
        assert "error" not in answer
    assert await orders.may_publish("$JS.API.CONSUMER.MSG.NEXT.JOURNAL.orders-3")
    assert await orders.may_publish("$JS.ACK.JOURNAL.orders-3.1.1.1.1.0")
    await _forget(control, "orders-3")


@can(82)
async def test_a_service_reads_the_past_of_a_tenant_for_a_replay(orders: Client) -> None:
    config = {"name": "orders-read-3", "filter_subject": "journal.3.acme.*.*"}
    made = await ask(
        orders,
        "CONSUMER.CREATE.JOURNAL.orders-read-3.journal.3.acme.*.*",
        {"stream_name": "JOURNAL", "config": config},
    )
    assert made is not None
    assert made["name"] == "orders-read-3"
    assert (await ask(orders, "CONSUMER.DELETE.JOURNAL.orders-read-3")) is not None


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
        "$JS.API.CONSUMER.CREATE.KV_catalogue.x.$KV.catalogue.>",
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
async def test_control_acknowledges_and_unpins_nothing_for_a_service(roles: Roles) -> None:
    control = await roles.role("control")
    assert not await control.may_publish("$JS.ACK.JOURNAL.ledger-0.1.1.1.1.0")
    assert not await control.may_publish("$JS.API.CONSUMER.UNPIN.JOURNAL.ledger-0")
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
    with pytest.raises(SetupError, match="is not a name for a service"):
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
        *("$JS.API.CONSUMER.MSG.NEXT.JOURNAL.orders-0", "$JS.API.CONSUMER.MSG.NEXT.JOURNAL.-0"),
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


async def test_a_worker_says_at_once_that_its_credentials_are_for_another(mesh: Mesh) -> None:
    creds = mesh.home.service_creds(["orders"])
    worker = Worker([Service("ledger", version="1.0.0")], servers=mesh.url, creds=creds)
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


# --- helpers -------------------------------------------------------------------------------------


async def _forget(control: Bus, consumer: str) -> None:
    if await _exists(control, consumer):
        await api(control, f"CONSUMER.DELETE.JOURNAL.{consumer}")
