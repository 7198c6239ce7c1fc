"""What comes is split as nats-py's own parser splits it, wherever the network cuts it."""

from __future__ import annotations

from typing import Any

import nats.errors
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from tenantry.bus.client import NatsClient
from tenantry.bus.message import Message, fields
from tenantry.bus.protocol import Splitter, publication

MOST = 1 << 20

subjects = st.text("abc.$_-", min_size=1, max_size=20)
bodies = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 2\r\nPING\r\n", b"\r\nPONG"])
blocks = st.just(b"") | st.binary(max_size=30).map(lambda raw: b"NATS/1.0\r\n" + raw + b"\r\n\r\n")
names = st.text("abcXYZ-_.!09", min_size=1, max_size=12)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message of the server's, or a line of another kind."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n"]))
    subject, reply = draw(subjects), draw(st.just("") | subjects)
    block, body = draw(blocks), draw(bodies)
    to = f"{subject} {draw(st.integers(1, 99))} {reply + ' ' if reply else ''}".encode()
    if block:
        return b"HMSG %b%d %d\r\n%b%b\r\n" % (to, len(block), len(block + body), block, body)
    return b"MSG %b%d\r\n%b\r\n" % (to, len(body), body)


class Taken:
    """Stands where nats-py's parser has its client, to note what it finds."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    async def _process_msg(self, *message: Any) -> None:
        self.found.append(tuple(part or b"" for part in message))

    async def _process_ping(self) -> None:
        self.found.append(b"PING\r\n")

    async def _process_pong(self) -> None:
        self.found.append(b"PONG\r\n")


@given(st.lists(messages(), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=8))
async def test_what_comes_is_split_as_nats_py_splits_it(sent: list[bytes], cuts: list[int]) -> None:
    stream, theirs, ours = b"".join(sent), Taken(), list[Any]()
    await Parser(theirs).parse(stream)
    splitter = Splitter(
        lambda *message: ours.append(message),
        lambda line: None if line.startswith(b"+OK") else ours.append(line),
    )
    at = 0
    for number in range(len(stream)):
        if at >= len(stream):
            break
        step = cuts[number % len(cuts)]
        splitter.feed(stream[at : at + step])
        at += step
    assert ours == theirs.found


anything = st.binary(min_size=1, max_size=20).filter(lambda raw: not set(raw) & set(b" \t\r\n"))


@example(b"edge.acme.x\x0b5", 7, b"", b"", b"{}")
@example(b"edge.acme.x\x0b5", 7, b"", b"NATS/1.0\r\n\r\n", b"{}")
@given(anything, st.integers(1, 99), st.just(b"") | anything, blocks, bodies)
def test_a_message_is_for_the_subscription_that_the_server_says(
    subject: bytes, sid: int, reply: bytes, block: bytes, body: bytes
) -> None:
    """Whatever its sender has put into the subject: to nats-server only four bytes are blanks."""
    found = list[Any]()
    to = b" ".join(part for part in (subject, b"%d" % sid, reply) if part)
    sizes = b"%d %d" % (len(block), len(block + body)) if block else b"%d" % len(body)
    line = b"%b %b %b\r\n%b%b\r\n" % (b"HMSG" if block else b"MSG", to, sizes, block, body)
    Splitter(lambda *message: found.append(message), lambda _: None).feed(line)
    assert found == [(sid, subject, reply, body, block)]


async def test_over_a_websocket_it_is_the_same() -> None:
    client, found = NatsClient(), list[Message]()
    for sid in (5, 7):
        client._subs[sid] = Subscription(client, sid, "x")
    client._inline = {5: lambda _: pytest.fail("of another subscription"), 7: found.append}
    client.hasten()
    await client._ps.parse(b"+OK\r\nMSG edge.acme.x\x0b5 7 2\r\n{}\r\n+OK\r\n")
    assert [(message.subject, message.data) for message in found] == [("edge.acme.x\x0b5", b"{}")]


@given(st.dictionaries(names, values, max_size=5), bodies)
def test_what_is_published_reads_the_same(headers: dict[str, str], body: bytes) -> None:
    found = list[Any]()
    data = publication("a.b", body, "r", headers, MOST)
    as_delivered = data.replace(b"HPUB a.b r", b"HMSG a.b 7 r", 1).replace(
        b"PUB a.b r", b"MSG a.b 7 r", 1
    )
    Splitter(lambda *message: found.append(message), lambda _: None).feed(as_delivered)
    ((sid, subject, reply, data, block),) = found
    assert (sid, subject, reply, data) == (7, b"a.b", b"r", body)
    clean = {
        name: value.replace("\r", " ").replace("\n", " ").strip(" \t\n\r\v\f")
        for name, value in headers.items()
    }
    assert (fields(block) if block else None) == (clean or None)


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0", "a\tb", "a\n"])
def test_a_subject_can_not_end_its_line(subject: str) -> None:
    with pytest.raises(nats.errors.BadSubjectError):
        publication(subject, b"", "", None, MOST)


@pytest.mark.parametrize("reply", ["a b", "a\r\nPUB x 0", "a\tb"])
def test_a_reply_subject_can_not_end_its_line(reply: str) -> None:
    with pytest.raises(nats.errors.BadSubjectError):
        publication("a", b"", reply, None, MOST)


@pytest.mark.parametrize(("subject", "reply"), [("a" * 4073, ""), ("a", "\ufffd" * 1400)])
def test_a_line_that_the_server_would_hang_up_for_is_not_sent(subject: str, reply: str) -> None:
    with pytest.raises(nats.errors.BadSubjectError):
        publication(subject, b"", reply, {"a": "b"}, MOST)


def test_a_line_that_the_server_reads_is_sent() -> None:
    assert publication("a" * 3000, b"", "b" * 1000, None, MOST)


@pytest.mark.parametrize("name", ["a b", "a:", "a\r\nb", "\u00e4", " a"])
def test_a_header_name_can_not_end_itself(name: str) -> None:
    with pytest.raises(nats.errors.BadHeaderError):
        publication("a", b"", "", {name: "1"}, MOST)


def test_headers_count_for_the_largest_message() -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        publication("a", b"x" * 90, "", {"A": "1"}, 100)


def test_a_message_of_just_that_size_can_be_published() -> None:
    assert publication("a", b"x" * 100, "", None, 100)


def test_headers_without_a_name_are_passed_over() -> None:
    assert publication("a", b"", "", {"": "1"}, MOST) == b"HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n"
