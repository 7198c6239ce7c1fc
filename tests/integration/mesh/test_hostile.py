"""What one tenant's program sends, however odd, is no other tenant's affair."""

from __future__ import annotations

import pytest

from tests.mesh import Mesh, Program, eventually
from tests.services import picky


async def send_raw(program: Program, header: bytes, body: bytes = b"{}") -> None:
    """A message with a header block as no client would make it."""
    command = b"HPUB tenant.%s.notes.echo %d %d\r\n%s%s\r\n" % (
        program.id.encode(),
        len(header),
        len(header) + len(body),
        header,
        body,
    )
    transport = program.plain._transport
    assert transport is not None
    transport.write(command)
    await transport.drain()
    await program.plain.flush()


async def serves(program: Program) -> bool:
    return (await program.ask("notes.echo", {"text": "hi"})).code == ""


@pytest.mark.parametrize(
    "header",
    [
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0",
        b"NATS/1.0\r\n",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
        b"NATS/1.0\r\n: x\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
    ],
)
async def test_an_odd_header_block_harms_nobody(
    header: bytes, acme: Program, globex: Program
) -> None:
    await send_raw(acme, header)
    assert await serves(globex)


async def test_a_header_block_too_large_to_pass_on_is_refused(acme: Program) -> None:
    answer = await acme.ask("notes.echo", {"text": "hi"}, headers={"X": "x" * 1_000_000})
    assert answer.code == "too_large"


async def test_a_header_block_too_large_to_pass_on_harms_nobody(
    acme: Program, globex: Program
) -> None:
    await acme.ask("notes.echo", {"text": "hi"}, headers={"X": "x" * 1_000_000})
    assert await serves(globex)


async def test_headers_of_a_usual_size_pass(acme: Program) -> None:
    answer = await acme.ask("notes.echo", {"text": "hi"}, headers={"X": "x" * 4_000})
    assert answer.code == ""


@pytest.mark.parametrize("ending", ["", ".", ".*", ".>", ".a..b"])
async def test_a_reply_subject_that_is_none_gets_no_answer(ending: str, acme: Program) -> None:
    inbox = f"_INBOX.{acme.id}"
    heard = []

    async def hear(message: object) -> None:
        heard.append(message)

    await acme.plain.subscribe(f"{inbox}.>", cb=hear)
    transport = acme.plain._transport
    assert transport is not None
    transport.write(
        b"PUB tenant.%s.notes.echo %s 2\r\n{}\r\n" % (acme.id.encode(), f"{inbox}{ending}".encode())
    )
    await transport.drain()
    assert await serves(acme)
    assert len(heard) == 1  # of what came after it


async def test_a_tenant_that_is_suspended_is_answered_only_so_often(
    mesh: Mesh, acme: Program
) -> None:
    await mesh.control("suspend", id=acme.id)

    async def refused() -> bool:
        return (await acme.ask("notes.echo", {"text": "hi"})).code == "tenant_suspended"

    await eventually(refused)
    unanswered = 0
    for _ in range(15):
        try:
            await acme.ask("notes.echo", {"text": "hi"}, timeout=0.05)
        except TimeoutError:
            unanswered += 1
    assert unanswered > 0


@pytest.fixture(scope="module")
def odd(mesh: Mesh) -> str:
    """A service that checks its messages itself, and answers with any size."""
    mesh.start(mesh.worker(picky("picky")))
    return "picky"


async def test_a_check_that_fails_oddly_is_answered(mesh: Mesh, odd: str, acme: Program) -> None:
    await mesh.ready(acme, "picky.check")
    assert (await acme.ask("picky.check", {"text": "bad"})).code == "handler_failed"


async def test_a_check_that_holds_is_answered(mesh: Mesh, odd: str, acme: Program) -> None:
    await mesh.ready(acme, "picky.check")
    assert (await acme.ask("picky.check", {"text": "good"})).code == ""


async def test_commands_that_fail_oddly_take_no_slot_for_good(
    mesh: Mesh, odd: str, acme: Program, globex: Program
) -> None:
    await mesh.ready(acme, "picky.check")
    for _ in range(6):
        await acme.client.publish("picky.take", {"text": "bad"})
    await globex.client.publish("picky.take", {"text": "good"})

    async def taken() -> bool:
        return await globex.texts("picky") == ["good"]

    await eventually(taken)


async def test_an_answer_too_large_to_send_is_told(mesh: Mesh, odd: str, acme: Program) -> None:
    await mesh.ready(acme, "picky.check")
    answer = await acme.ask("picky.grow", {"text": "", "count": 2_000_000})
    assert answer.code == "handler_failed"


async def test_a_large_answer_arrives(mesh: Mesh, odd: str, acme: Program) -> None:
    await mesh.ready(acme, "picky.check")
    answer = await acme.ask("picky.grow", {"text": "", "count": 900_000})
    assert answer.code == ""
