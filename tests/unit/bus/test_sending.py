"""What a handler has left is stored as a whole, or the message that left it fails."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest

from tenantry import Context, Service
from tenantry.bus import Bus, Message
from tenantry.bus import jetstream as js
from tenantry.bus.jetstream import Delivery
from tenantry.bus.reading import read
from tenantry.context.claims import Claims
from tenantry.context.context import Context as Ctx
from tenantry.context.context import Staged
from tenantry.context.fence import Fence, free
from tenantry.context.token import KeyRing, Minter, Trusted
from tenantry.errors import HandlerFailed, Superseded, TenantUnknown, TooLarge, Unavailable
from tenantry.messages import Cursor, RenewedContext
from tenantry.runtime import outbox as outboxes
from tenantry.runtime.audit import Audit
from tenantry.runtime.mesh import WorkerMesh
from tenantry.runtime.outbox import RENEW_SUBJECT, ForeignSubject, Outbox, Parcel, Renewer
from tenantry.runtime.requests import Endpoint, Requests
from tenantry.runtime.runner import Runner
from tenantry.runtime.slots import Slots
from tenantry.runtime.stored import StoredMessages
from tenantry.service.handler import Handler
from tenantry.subjects import Address
from tenantry.wire import codec, headers, problem, trace
from tests.unit.bus.station import fresh

MINTER = Minter("k1", b"\1" * 32)


def context(bus: Bus, *, seq: int = 0, expires: float = 0.0, token: str = "token") -> Ctx:
    claims = Claims(tenant="acme", plan="p", principal="edge", issued=0.0, expires=expires)
    mesh = WorkerMesh(bus, Renewer(bus), Audit(bus, "orders", "1"))
    address = Address("acme", "orders", "place")
    return Ctx(mesh, claims, token, address, trace.new(), message_id="m1", seq=seq)


async def made(bus: Bus, **options: Any) -> str:
    """A stream; the subject that it takes."""
    name = fresh("sent")
    await js.ensure_stream(bus, {"name": name, "subjects": [f"{name}.acme.x"], **options})
    return f"{name}.acme.x"


async def test_what_is_staged_is_stored(bus: Bus) -> None:
    subject = await made(bus)
    ctx = context(bus)
    await Outbox(bus, Renewer(bus)).publish(ctx, [Staged(subject, b"1"), Staged(subject, b"2")])
    info = await js.api(bus, f"STREAM.INFO.{subject.partition('.')[0]}")
    assert info["state"]["messages"] == 2


async def test_what_nats_never_takes_is_refused_before_anything_is_sent(bus: Bus) -> None:
    subject = await made(bus)
    staged = [Staged(subject, b"1"), Staged(subject, b"x" * (bus.max_body + 1))]
    with pytest.raises(TooLarge):
        await Outbox(bus, Renewer(bus)).publish(context(bus), staged)
    info = await js.api(bus, f"STREAM.INFO.{subject.partition('.')[0]}")
    assert info["state"]["messages"] == 0


async def test_what_the_stream_never_takes_is_too_large(bus: Bus) -> None:
    subject = await made(bus, max_msg_size=100)
    with pytest.raises(TooLarge):
        await Outbox(bus, Renewer(bus)).publish(context(bus), [Staged(subject, b"x" * 200)])


async def test_a_full_stream_may_take_it_later(bus: Bus) -> None:
    subject = await made(bus, max_msgs=1, discard="new")
    staged = [Staged(subject, b"1"), Staged(subject, b"2")]
    with pytest.raises(Unavailable):
        await Outbox(bus, Renewer(bus)).publish(context(bus), staged)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
async def test_many_are_stored_in_their_order(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(outboxes, "_BATCH", 2)
    subject = await made(bus)
    staged = [Staged(subject, str(number).encode()) for number in range(count)]
    await Outbox(bus, Renewer(bus)).publish(context(bus), staged)
    assert await bodies(bus, subject) == [message.body for message in staged]


async def test_no_more_than_a_batch_is_under_way(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "_BATCH", 2)
    subject, under_way, most = await made(bus), [0], [0]
    begin, stored = js.begin_store, js.stored

    async def begins(*args: Any) -> asyncio.Future[Message]:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        return await begin(*args)

    def is_stored(answer: Message) -> js.Stored:
        under_way[0] -= 1
        return stored(answer)

    monkeypatch.setattr(js, "begin_store", begins)
    monkeypatch.setattr(js, "stored", is_stored)
    await Outbox(bus, Renewer(bus)).publish(context(bus), [Staged(subject, b"")] * 5)
    assert most == [2]


async def test_a_timer_is_published_after_all_others(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "_BATCH", 2)
    subject = await made(bus)
    schedule = Staged(subject, b"schedule", timer=Staged(subject, b"timer"))
    staged = [schedule, Staged(subject, b"1"), Staged(subject, b"2")]
    await Outbox(bus, Renewer(bus)).publish(context(bus), staged)
    assert await bodies(bus, subject) == [b"schedule", b"1", b"2", b"timer"]


async def test_what_is_stored_need_not_be_sent_again(bus: Bus) -> None:
    subject = await made(bus, max_msg_size=100)
    parcels = [Parcel(subject, {}, body) for body in (b"1", b"x" * 200, b"2")]
    with pytest.raises(TooLarge):
        await Outbox(bus, Renewer(bus)).send(parcels, {})
    assert [len(parcel.body) for parcel in parcels] == [200]
    assert await bodies(bus, subject) == [b"1", b"2"]


async def test_what_gets_no_answer_is_to_be_sent_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "_TIMEOUT", 0.1)
    subject, silent = await made(bus), fresh("silent")
    subscription = await bus.subscribe(silent, _says_nothing)
    parcels = [Parcel(subject, {}, b"1"), Parcel(silent, {}, b"2"), Parcel(subject, {}, b"3")]
    with pytest.raises(Unavailable):
        await Outbox(bus, Renewer(bus)).send(parcels, {})
    assert [parcel.body for parcel in parcels] == [b"2", b"3"]
    await subscription.stop()


async def test_nothing_goes_to_another_tenant(bus: Bus) -> None:
    with pytest.raises(ForeignSubject):
        await Outbox(bus, Renewer(bus)).publish(context(bus), [Staged("tenant.globex.a.b", b"")])


async def _says_nothing(_message: Message) -> None:
    pass


async def bodies(bus: Bus, subject: str) -> list[bytes]:
    """What the stream of a subject has."""
    stream = subject.partition(".")[0]
    return [message.data async for message in read(bus, stream, ">")]


async def test_a_stream_that_says_nothing_may_take_it_later(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "_TIMEOUT", 0.1)
    subject = f"{fresh('silent')}.acme.x"

    async def silent(_message: Message) -> None:
        pass

    subscription = await bus.subscribe(subject, silent)
    with pytest.raises(Unavailable):
        await Outbox(bus, Renewer(bus)).publish(context(bus), [Staged(subject, b"")])
    await subscription.stop()


async def test_a_renewer_keeps_a_bounded_number(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "_KEPT", 2)

    async def renew(message: Message) -> None:
        await bus.answer(message, codec.encode(RenewedContext(token="fresh")))

    subscription = await bus.subscribe(RENEW_SUBJECT, renew)
    renewer = Renewer(bus)
    for number in range(5):
        assert await renewer.token(context(bus, seq=1, token=str(number))) == "fresh"
        assert len(renewer._fresh) <= 2
    await subscription.stop()


async def test_what_the_router_does_not_renew_is_refused(bus: Bus) -> None:
    async def refuse(message: Message) -> None:
        fields, body = problem.dump(TenantUnknown("gone"), "0" * 32)
        await bus.answer(message, body, headers=fields)

    subscription = await bus.subscribe(RENEW_SUBJECT, refuse)
    with pytest.raises(TenantUnknown):
        await Renewer(bus).token(context(bus, seq=1, token="stale"))
    await subscription.stop()


# in its turn


class Stored:
    """A message as the journal has it."""

    subject = "journal.0.acme.orders.place"
    data = b"{}"

    def __init__(self) -> None:
        self.headers = {headers.CONTEXT: MINTER.mint("acme", "p", "edge")}


def handling(bus: Bus) -> tuple[StoredMessages, Handler]:
    service = Service("orders")

    @service.command("place")
    async def place(ctx: Context) -> None:
        ctx.send("orders.place", {})

    ring = KeyRing()
    ring.replace({"k1": Trusted(MINTER.public_key)})
    audit = Audit(bus, "orders", "1")
    renewer = Renewer(bus)
    runner = Runner(service, ring, WorkerMesh(bus, renewer, audit), Outbox(bus, renewer), audit)
    return StoredMessages(runner), service.handlers["place"]


async def test_what_comes_after_its_lane_is_lost_does_not_count(bus: Bus) -> None:
    messages, handler = handling(bus)
    delivery = Delivery(1, 1, time.time(), 0, 1)

    async def ours() -> bool:
        return False

    with pytest.raises(Superseded):
        await messages.handle(handler, Stored(), delivery, Fence(lambda: True, ours, seq=1))


async def test_who_has_missed_no_keys_does_not_wait_for_any(bus: Bus) -> None:
    messages, _ = handling(bus)
    assert not await messages._runner.caught_up()


class NeverSetBack:
    """Every tenant's cursor: nobody was set back."""

    def of(self, _tenant: str) -> Cursor:
        return Cursor()


async def test_a_request_waits_for_a_key_that_was_missed(bus: Bus) -> None:
    service, ring = Service("orders"), KeyRing()

    @service.request("whose")
    async def whose(ctx: Context) -> str:
        return ctx.tenant

    async def caught_up() -> bool:
        ring.replace({"k1": Trusted(MINTER.public_key)})
        return True

    audit, renewer = Audit(bus, "orders", "1"), Renewer(bus)
    mesh, outbox = WorkerMesh(bus, renewer, audit), Outbox(bus, renewer)
    runner = Runner(service, ring, mesh, outbox, audit, caught_up=caught_up)
    requests = Requests(bus, runner, Slots(service, runner.stats), NeverSetBack())  # type: ignore[arg-type]
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Message) -> None:
        answers.put_nowait(message.data)

    subscription = await bus.subscribe("_INBOX.acme.1", hear)
    block = f"NATS/1.0\r\nTenant-Context: {MINTER.mint('acme', 'p', 'edge')}\r\n\r\n".encode()
    request = Message("request.acme.orders.whose", "_INBOX.acme.1", b"{}", block)
    requests.accept(Endpoint(service.handlers["whose"]), request)
    assert await asyncio.wait_for(answers.get(), 5) == b'"acme"'
    await subscription.stop()


@pytest.mark.parametrize("end", [KeyboardInterrupt, GeneratorExit])
async def test_what_ends_the_process_is_no_failure_of_the_handler(
    bus: Bus, end: type[BaseException]
) -> None:
    messages, handler = handling(bus)

    async def ends(_ctx: Context) -> None:
        raise end

    with pytest.raises(end):
        await messages._runner.run(
            dataclasses.replace(handler, function=ends), context(bus), None, 1.0, "0" * 32
        )


async def test_a_reset_that_fails_says_so(bus: Bus) -> None:
    async def fails(_ctx: Context) -> None:
        raise RuntimeError("no")

    messages, _ = handling(bus)
    with pytest.raises(HandlerFailed, match="reset hook of orders"):
        await messages.reset("acme", fails, free())


async def test_a_reset_that_works_says_nothing(bus: Bus) -> None:
    seen: list[str] = []

    async def works(ctx: Context) -> None:
        seen.append(ctx.tenant)

    await handling(bus)[0].reset("acme", works, free())
    assert seen == ["acme"]
