"""Header blocks are read as nats-py reads them."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from tenantry.bus import Bus
from tenantry.bus.message import fields
from tests.unit.bus.station import Heard, fresh


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"A: 1\r\n\r\n",
        b"A:1\r\nB:\t2 \r\nC:\r\n\r\n",
        b"A: 1\r\nA: 2\r\na: 3\r\n\r\n",
        b"A: b:c:d\r\n\r\n",
        b"no colon\r\nA: 1\r\n\r\n",
        b"A B: 1\r\n A: 2\r\nA\tB: 3\r\nA\x1cB: 4\r\nC : 5\r\n\r\n",
        "Gr\u00fc\u00dfe: 1\r\nA: Gr\u00fc\u00dfe\r\n\r\n".encode(),
        b"A: \xff\xfe\r\n\xff: 1\r\n\r\n",
        b"A: 1\nB: 2\r\n\r\n",
    ],
)
async def test_a_block_says_the_same(raw: bytes) -> None:
    block = b"NATS/1.0\r\n" + raw
    assert fields(block) == await Client()._process_headers(block)


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1016\r\nA: b\r\n\r\n",
        b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Bytes: 9\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"NATS/1.0\r\n\r\n",
    ],
)
async def test_a_status_says_the_same(block: bytes) -> None:
    assert fields(block) == (await Client()._process_headers(block) or None)


@pytest.mark.parametrize("block", [b"\xff\xfe", b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"x", b"\r\n"])
def test_a_block_that_is_none_ends_nothing(block: bytes) -> None:
    assert fields(block) is None


def test_a_field_without_a_name_is_passed_over() -> None:
    assert fields(b"NATS/1.0\r\n: x\r\nA: 1\r\n\r\n") == {"A": "1"}


async def test_headers_arrive_as_they_were_sent(bus: Bus) -> None:
    heard, subject = Heard(), fresh()
    await bus.subscribe(subject, heard)
    sent = {"Plain": "1", "Colon": "a: b", "Text": "Gr\u00fc\u00dfe", "x-y_z": "2"}
    await bus.publish(subject, b"", headers=sent)
    await bus.publish(subject, b"", headers=sent)
    await heard.reach(2)
    assert [message.headers for message in heard.messages] == [sent, sent]
