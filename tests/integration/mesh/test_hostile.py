"""What one tenant's program has a service do, however odd, is no other tenant's affair."""

from __future__ import annotations

import pytest

from tests.mesh import Mesh, Program, eventually
from tests.services import picky


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
