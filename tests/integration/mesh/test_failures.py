"""Handlers that fail, each in its way: the asker gets an error, and the next message is served."""

from __future__ import annotations

import asyncio

import pytest

from tenantry import Context, Service, errors
from tests.mesh import Mesh, Program, eventually
from tests.services import Note


async def fails(program: Program, how: str) -> tuple[str, int]:
    answer = await program.ask("notes.bad", {"text": how})
    return answer.code, answer.json["status"]


@pytest.mark.parametrize("how", ["raise", "chained", "cancel", "type", "timeout", "exit"])
async def test_a_handler_that_fails_is_500(acme: Program, how: str) -> None:
    assert await fails(acme, how) == ("handler_failed", 500)


async def test_a_result_that_json_cannot_carry_is_500(acme: Program) -> None:
    assert await fails(acme, "unencodable") == ("handler_failed", 500)


async def test_a_handler_that_hangs_is_504(acme: Program) -> None:
    assert await fails(acme, "hang") == ("deadline_exceeded", 504)


async def test_a_rejection_that_a_handler_raises_is_the_answer(acme: Program) -> None:
    assert await fails(acme, "reject") == ("conflict", 409)


@pytest.mark.parametrize(
    "how",
    ["raise", "chained", "cancel", "hang", "type", "unencodable", "timeout", "reject", "exit"],
)
async def test_the_next_message_is_served(acme: Program, how: str) -> None:
    await fails(acme, how)
    assert (await acme.ask("notes.bad", {"text": "fine"})).json["text"] == "fine"


async def test_what_a_failed_handler_emitted_is_not_published(
    acme: Program, globex: Program
) -> None:
    await acme.ask("notes.emit_then_fail", {"text": "never"})
    await acme.ask("notes.emit", {"text": "later", "count": 1})
    await eventually(lambda: _followed(acme, ["later0"]))


async def test_what_was_emitted_beside_a_bad_result_is_not_published(acme: Program) -> None:
    await acme.ask("notes.emit_then_unencodable", {"text": "never"})
    await acme.ask("notes.emit", {"text": "later", "count": 1})
    await eventually(lambda: _followed(acme, ["later0"]))


async def test_a_busy_service_refuses_what_it_cannot_keep(mesh: Mesh, acme: Program) -> None:
    service, gate = Service("narrow", concurrency=1), asyncio.Event()

    @service.request("wait", public=True)
    async def wait(_ctx: Context) -> Note:
        await gate.wait()
        return Note("done")

    running = mesh.start(mesh.worker(service))
    await eventually(lambda: _knows(acme, "narrow.nothing"))
    asked = [asyncio.create_task(acme.ask("narrow.wait")) for _ in range(60)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    refused = done.pop().result()
    assert (refused.code, refused.json["violated-policies"]) == ("rate_limited", ["queue"])
    await mesh.aside(_set(gate))
    answers = await asyncio.gather(*asked)
    assert {answer.code for answer in answers} == {"", "rate_limited"}
    await running.stop()


async def test_the_client_raises_what_the_handler_raised(acme: Program) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await acme.client.request("notes.bad", {"text": "hang"})


async def _followed(program: Program, texts: list[str]) -> bool:
    return await program.texts("followers") == texts


async def _knows(program: Program, action: str) -> bool:
    return (await program.ask(action)).code == "unknown_action"


async def _set(event: asyncio.Event) -> None:
    event.set()
