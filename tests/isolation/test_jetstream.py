"""JetStream, KV and the mesh's own subjects, tried with a tenant's credentials.

Two layers keep them away: the permissions of a tenant's credentials, and the account EDGE, in which
there is neither JetStream nor any service. Each is switched off once, in an operator home of our
own: `loose` may do everything in EDGE, `inside` has a tenant's permissions in MESH.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from tenantry.bus import Bus, api
from tenantry.operator import OperatorHome, claims, creds, generations, plant, roles
from tenantry.operator.keys import KeyPair, Kind
from tenantry_workers.router import RouterWorker
from tenantry_workers.tenants import TenantsWorker
from tests import services
from tests.isolation.cases import Layer, can, cannot
from tests.letters import lay, sent
from tests.mesh import PATIENCE, Mesh, Program, eventually, journal
from tests.servers import NatsServers

T = TypeVar("T", bound=Callable[..., object])
WIDE = claims.Template(pub=claims.Permission(allow=(">",)), sub=claims.Permission(allow=(">",)))


class Attempt(NamedTuple):
    """What is published, and why the role `control` gets an answer to it."""

    case: int
    subject: str
    body: Any = None

    @property
    def payload(self) -> bytes:
        return b"" if self.body is None else json.dumps(self.body).encode()

    def of(self, other: str) -> Attempt:
        """The same, tried on a tenant."""
        return Attempt(
            self.case,
            self.subject.replace("OTHER", other),
            json.loads(json.dumps(self.body).replace("OTHER", other)),
        )


CONSUMER = {
    "stream_name": "JOURNAL",
    "config": {"name": "spy", "ack_policy": "none", "filter_subject": "journal.*.OTHER.>"},
}
WATCH = {
    "stream_name": "KV_state",
    "config": {"name": "spy", "ack_policy": "none", "filter_subject": "$KV.state.OTHER.>"},
}
SOURCE = {
    "name": "SPY",
    "storage": "memory",
    "sources": [{"name": "JOURNAL", "filter_subject": "journal.*.OTHER.>"}],
}
API = "$JS.API"

ATTEMPTS = [
    Attempt(34, f"{API}.INFO"),
    Attempt(34, f"{API}.STREAM.NAMES"),
    Attempt(34, f"{API}.STREAM.LIST"),
    Attempt(34, f"{API}.STREAM.INFO.JOURNAL", {"subjects_filter": "journal.*.OTHER.>"}),
    Attempt(34, f"{API}.CONSUMER.NAMES.JOURNAL"),
    Attempt(35, f"{API}.CONSUMER.CREATE.JOURNAL.spy.journal.*.OTHER.>", CONSUMER),
    Attempt(36, f"{API}.STREAM.MSG.GET.JOURNAL", {"next_by_subj": "journal.*.OTHER.>"}),
    Attempt(36, f"{API}.DIRECT.GET.JOURNAL", {"seq": 1, "next_by_subj": "journal.*.OTHER.>"}),
    Attempt(37, f"{API}.STREAM.PURGE.JOURNAL", {"filter": "journal.*.OTHER.nothing.>"}),
    Attempt(37, f"{API}.STREAM.PURGE.KV_state", {"filter": "$KV.state.OTHER.nothing.>"}),
    Attempt(39, f"{API}.DIRECT.GET.KV_tenants.$KV.tenants.OTHER"),
    Attempt(39, f"{API}.DIRECT.GET.KV_state.$KV.state.OTHER.notes.texts"),
    Attempt(39, f"{API}.CONSUMER.CREATE.KV_state.spy.$KV.state.OTHER.>", WATCH),
    Attempt(40, f"{API}.STREAM.CREATE.SPY", SOURCE),
    Attempt(63, f"{API}.DIRECT.GET.DEAD", {"seq": 1, "next_by_subj": "dead.OTHER.>"}),
    Attempt(63, f"{API}.STREAM.PURGE.DEAD", {"filter": "dead.OTHER.nothing.>"}),
    Attempt(69, "stats.tenants", {}),
    Attempt(69, "platform.tenants.show", {"id": "OTHER"}),
    Attempt(70, "$SRV.PING"),
    Attempt(70, "$SRV.INFO.notes"),
    Attempt(70, "$SRV.STATS.notes"),
    Attempt(70, f"{API}.DIRECT.GET.KV_catalogue", {"seq": 1, "next_by_subj": "$KV.catalogue.>"}),
]
SILENT = [
    Attempt(38, "$JS.ACK.DEAD.tenants-letters.1.1.1.1700000000000000000.0"),
    Attempt(39, "$KV.checkpoints.notes.3", {}),
    Attempt(39, "$KV.state.OTHER.notes.texts", {}),
    Attempt(39, "$KV.tenants.OTHER", {}),
    Attempt(63, "dead.OTHER.notes.1", {}),
]
"""What nobody answers, or must not be done even as a test of the test."""

TRIED = sorted({each.case for each in (*ATTEMPTS, *SILENT)})


def each_case(mark: Callable[[int], Callable[[T], T]]) -> Callable[[T], T]:
    """The same mark for all that is tried here."""

    def decorate(test: T) -> T:
        for case in TRIED:
            test = mark(case)(test)
        return test

    return decorate


@dataclass
class Spy:
    """A connection, what it has been refused, and what it has heard."""

    nats: Client
    inbox: str
    refused: list[str] = field(default_factory=list)
    heard: list[Msg] = field(default_factory=list)

    async def attempt(self, attempt: Attempt) -> None:
        """Publish it with a reply subject of one's own."""
        await self.nats.publish(attempt.subject, attempt.payload, reply=f"{self.inbox}.x")
        for _ in range(2):
            await self.nats.flush()

    async def was_refused(self, subject: str) -> None:
        """Return when the server has refused to publish there."""

        async def told() -> bool:
            return any(f'"{subject}"'.lower() in each.lower() for each in self.refused)

        await eventually(told)


@asynccontextmanager
async def spying(url: str, path: Path, tenant: str) -> AsyncIterator[Spy]:
    """A plain connection with these credentials."""
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    inbox = f"_INBOX.{tenant}"
    client = await nats.connect(
        url, user_credentials=str(path), inbox_prefix=inbox, error_cb=on_error
    )
    spy = Spy(client, inbox, refused)

    async def hear(message: Msg) -> None:
        spy.heard.append(message)

    await client.subscribe(f"{inbox}.x", cb=hear)
    try:
        yield spy
    finally:
        await client.close()


@pytest.fixture(params=[*ATTEMPTS, *SILENT], ids=lambda each: f"{each.case}-{each.subject}")
def attempt(request: pytest.FixtureRequest) -> Attempt:
    return request.param


# with everything in place


@each_case(lambda case: cannot(case, Layer.SERVER, Layer.ACCOUNT))
async def test_a_tenant_is_refused(
    mesh: Mesh, acme: Program, globex: Program, attempt: Attempt
) -> None:
    attempt = attempt.of(globex.id)
    async with spying(mesh.url, acme.creds, acme.id) as spy:
        await spy.attempt(attempt)
        await spy.was_refused(attempt.subject)
        assert spy.heard == []


@can(34)
@can(36)
async def test_a_tenant_stores_a_command_and_is_told_where(acme: Program, control: Bus) -> None:
    stored = await acme.plain.jetstream().publish(
        f"tenant.{acme.id}.notes.remember", b'{"text":""}'
    )
    (entry,) = await journal(control, acme.id, "notes.remember")
    assert (stored.stream, stored.seq) == ("JOURNAL", entry.seq)


@can(38)
@can(39)
async def test_a_tenant_reads_its_state_by_way_of_the_service(acme: Program) -> None:
    await acme.client.publish("notes.remember", {"text": "mine"})

    async def remembered() -> bool:
        return await acme.texts() == ["mine"]

    await eventually(remembered)


# with one of the two layers off


class Loose(NamedTuple):
    """A mesh whose servers keep less apart than ours."""

    mesh: Mesh
    loose: Path
    """Credentials in EDGE that may do anything there."""
    inside: Path
    """Credentials in MESH with the permissions of a tenant."""
    own: str
    other: str


@pytest.fixture(scope="module")
def weak(nats_backend: NatsServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loose]:
    folder = tmp_path_factory.mktemp("loose")
    with pytest.MonkeyPatch.context() as patch:
        spare, original = KeyPair.generate(Kind.ACCOUNT), plant.render_accounts

        def weaker(*args: Any) -> dict[str, claims.Account]:
            built = original(*args)
            key = claims.ScopedKey(key=spare.public_key, role="spare", template=roles.TENANT)
            inside = (*built["mesh"].signing_keys, key)
            wide = [
                msgspec.structs.replace(each, template=WIDE) for each in built["edge"].signing_keys
            ]
            return built | {
                "edge": msgspec.structs.replace(built["edge"], signing_keys=tuple(wide)),
                "mesh": msgspec.structs.replace(built["mesh"], signing_keys=inside),
            }

        patch.setattr(plant, "render_accounts", weaker)
        # A mesh refuses a directory with other permissions than its own.
        patch.setattr(generations, "outdated", lambda _home: "")
        mesh = Mesh(nats_backend(OperatorHome.create), folder)
        yield asyncio.run(_filled(mesh, folder, spare))
        mesh.close()


async def _filled(mesh: Mesh, folder: Path, spare: KeyPair) -> Loose:
    """Two tenants, and something of the second one in every place."""
    mesh.start(TenantsWorker(mesh.options()))
    mesh.start(RouterWorker(mesh.options()))
    mesh.start(mesh.worker(services.notes))
    async with (
        mesh.program() as acme,
        mesh.program() as globex,
        await mesh.insider("root") as control,
    ):
        await globex.client.publish("notes.remember", {"text": "secret"})

        async def remembered() -> bool:
            return await globex.texts() == ["secret"]

        await eventually(remembered)
        await lay(control, globex.id, await sent(control, globex, "dead"))
    loose, inside = folder / "loose.creds", folder / "inside.creds"
    loose.write_text(mesh.home.tenant_creds(acme.id))
    user = KeyPair.generate(Kind.USER)
    jwt = claims.encode(
        claims.User(issuer_account=mesh.home.mesh_public_key, tags=(creds.tenant_tag(acme.id),)),
        subject=user.public_key,
        signer=spare,
    )
    inside.write_text(creds.render(jwt, user))
    return Loose(mesh, loose, inside, acme.id, globex.id)


@each_case(lambda case: cannot(case, Layer.SERVER, without=Layer.ACCOUNT))
async def test_permissions_hold_in_the_account_of_the_mesh_too(
    weak: Loose, attempt: Attempt
) -> None:
    attempt = attempt.of(weak.other)
    async with spying(weak.mesh.url, weak.inside, weak.own) as spy:
        await spy.attempt(attempt)
        await spy.was_refused(attempt.subject)
        assert spy.heard == []


@each_case(lambda case: cannot(case, Layer.ACCOUNT, without=Layer.SERVER))
async def test_what_is_not_in_the_account_is_not_there_whatever_one_may(
    weak: Loose, attempt: Attempt
) -> None:
    attempt, heard = attempt.of(weak.other), list[bytes]()
    async with (
        await weak.mesh.insider("root") as control,
        spying(weak.mesh.url, weak.loose, weak.own) as spy,
    ):

        async def hear(message: Any) -> None:
            heard.append(message.data)

        before = await everything(control)
        await control.subscribe(attempt.subject, hear)
        try:
            answer = await spy.nats.request(attempt.subject, attempt.payload, timeout=PATIENCE)
        except NoRespondersError:
            pass
        else:  # nats-server's own word that the account has no JetStream
            assert json.loads(answer.data)["error"]["err_code"] == 10039
        assert spy.refused == []
        await control.flush()
        assert heard == []
        assert await everything(control) == before


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda each: f"{each.case}-{each.subject}")
@can(34)
@can(35)
@can(36)
@can(37)
@can(39)
@can(40)
@can(63)
@can(69)
@can(70)
async def test_the_control_plane_is_answered(weak: Loose, attempt: Attempt) -> None:
    """What was refused above was asked in the right way."""
    async with await weak.mesh.insider("root") as control:
        answer = await control.call(attempt.of(weak.other).subject, attempt.of(weak.other).payload)
        assert "Status" not in (answer.headers or {})
        if answer.data.startswith(b'{"type"'):
            assert "error" not in json.loads(answer.data)
        await clean(control)


async def everything(control: Bus) -> Any:
    """Which streams there are, and how much those hold that are tried."""
    found = (await api(control, "STREAM.LIST"))["streams"]
    held = {each["config"]["name"]: each["state"]["messages"] for each in found}
    return set(held), [held[name] for name in ("JOURNAL", "DEAD", "KV_state", "KV_tenants")]


async def clean(control: Bus) -> None:
    """Take away what an attempt may have made."""
    for ask in ("STREAM.DELETE.SPY", "CONSUMER.DELETE.JOURNAL.spy", "CONSUMER.DELETE.KV_state.spy"):
        await control.call(f"{API}.{ask}")
