"""JetStream by its wire API (JSON over `$JS.API.…`), as far as the mesh needs it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any, NamedTuple

import msgspec

from tenantry.bus.connection import Bus, Message
from tenantry.errors import JetStreamError, Unavailable

NOT_FOUND = 404
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
WRONG_LAST_SEQUENCE = 10071
TOO_LARGE = frozenset({10054, 10097})
"""`err_code` of a message that a stream never takes: it is too large, or has more than 64 KiB of
headers."""


class Stored(msgspec.Struct, frozen=True):
    """JetStream's PubAck: where a message was stored."""

    stream: str
    seq: int
    duplicate: bool = False


class Delivery(NamedTuple):
    """What JetStream says of a delivered message, in its ack subject (ADR-15)."""

    attempt: int
    seq: int
    stored: float
    """When the message was stored, seconds since the epoch."""
    pending: int
    """How many messages come after it."""
    number: int = 0
    """How many its consumer has handed out up to it."""

    @classmethod
    def of(cls, message: Message) -> Delivery:
        """Read the ack subject, with or without domain and account hash."""
        fields = message.reply.split(".")
        first = 4 if len(fields) == 9 else 6
        attempt, seq, number, at, pending = fields[first : first + 5]
        return cls(int(attempt), int(seq), int(at) / 1e9, int(pending), int(number))


class StoredMessage(NamedTuple):
    """A message as a stream keeps it."""

    subject: str
    seq: int
    time: float
    """When it was stored, seconds since the epoch."""
    headers: dict[str, str]
    """The message's own, without those that the server adds when it hands the message out."""
    data: bytes
    pending: int = 0
    """How many messages that fit the same filter come after it."""


class _ApiError(msgspec.Struct, frozen=True):
    code: int = 500
    err_code: int = 0
    description: str = "unknown error"


class _Ack(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _ApiError | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


async def api(bus: Bus, path: str, request: Any = None, *, timeout: float = 5.0) -> dict[str, Any]:
    """Call `$JS.API.<path>`; raises :class:`JetStreamError` when the server refuses."""
    body = b"" if request is None else msgspec.json.encode(request)
    answer = await bus.call(f"$JS.API.{path}", body, timeout=timeout)
    result: dict[str, Any] = msgspec.json.decode(answer.data)
    if error := result.get("error"):
        raise JetStreamError(
            str(error.get("description", "unknown error")),
            status=int(error.get("code", 500)),
            err_code=int(error.get("err_code", 0)),
        )
    return result


async def begin_store(
    bus: Bus, subject: str, payload: bytes, headers: dict[str, str] | None = None
) -> asyncio.Future[Message]:
    """Publish to a stream and return the future of its acknowledgement, for :func:`stored`."""
    return await bus.begin(subject, payload, headers=headers)


def stored(answer: Message) -> Stored:
    """Read an acknowledgement; raises :class:`JetStreamError` when the stream refused."""
    try:
        ack = _decode_ack(answer.data)
    except msgspec.MsgspecError:
        raise Unavailable("no stream stores this subject") from None
    if ack.error is not None:
        raise JetStreamError(
            ack.error.description, status=ack.error.code, err_code=ack.error.err_code
        )
    if not ack.stream:
        raise Unavailable("no stream stores this subject")  # somebody else has answered
    return Stored(ack.stream, ack.seq, ack.duplicate)


async def store(
    bus: Bus,
    subject: str,
    payload: bytes,
    *,
    headers: dict[str, str] | None = None,
    timeout: float = 5.0,
) -> Stored:
    """Publish to a stream and wait for the acknowledgement."""
    return stored(await bus.call(subject, payload, headers=headers, timeout=timeout))


async def get_batch(
    bus: Bus,
    stream: str,
    *,
    seq: int = 1,
    subject: str = ">",
    batch: int = 256,
    max_bytes: int = 4 * 1024 * 1024,
    timeout: float = 10.0,
    start_time: float | None = None,
) -> list[StoredMessage]:
    """The next messages on `subject` (wildcards allowed) from `seq` on, in order (ADR-31).

    With `start_time` (seconds since the epoch) they are those stored at or after it, and `seq`
    counts for nothing. At most `batch` messages, and none after the one with which they have
    `max_bytes` or more. An empty list: there is none. Sequences that were erased or belong to
    others are just not there.

    Raises :class:`Unavailable` when the connection is lost or answers are, and
    :class:`DeadlineExceeded` after `timeout` seconds: nothing is returned then, ask again.
    """
    ask: dict[str, Any] = {"next_by_subj": subject, "batch": batch, "max_bytes": max_bytes}
    if start_time is None:
        ask["seq"] = max(seq, 1)
    else:
        ask["start_time"] = dt.datetime.fromtimestamp(start_time, dt.UTC).isoformat()
    path = f"$JS.API.DIRECT.GET.{stream}"
    answers = await bus.collect(path, msgspec.json.encode(ask), last=_is_status, timeout=timeout)
    end: dict[Any, str] = answers.pop().headers or {}
    status = end.get("Status")
    if status == str(NOT_FOUND) and not answers:
        return []
    if status != "204":
        raise JetStreamError(
            f"the stream {stream} can't be read: {end.get('Description', status)}",
            status=int(status) if status and status.isdigit() else 500,
        )
    found, before = [], 0
    for answer in answers:
        message, former = _stored_message(answer.headers or {}, answer.data)
        if former != before:
            break
        found.append(message)
        before = message.seq
    # Each answer names the one before it, and the end the last: what was dropped on the way shows.
    if len(found) < len(answers) or int(end.get("Nats-Last-Sequence", before)) != before:
        raise Unavailable(f"messages of {stream} were lost on the way here")
    return found


def _is_status(answer: Message) -> bool:
    headers: dict[Any, str] | None = answer.headers
    # Every message has the server's own headers: without any it can't be read, and ends the batch.
    return not headers or ("Status" in headers and "Nats-Sequence" not in headers)


def _stored_message(headers: dict[Any, str], data: bytes) -> tuple[StoredMessage, int]:
    """A message out of the server's answer, and the sequence of the one before it."""
    take = headers.pop
    take("Nats-Stream", None)
    message = StoredMessage(
        take("Nats-Subject"),
        int(take("Nats-Sequence")),
        dt.datetime.fromisoformat(take("Nats-Time-Stamp")).timestamp(),
        headers,
        data,
        int(take("Nats-Num-Pending", 0)),
    )
    return message, int(take("Nats-Last-Sequence", 0))


async def ensure_stream(bus: Bus, config: dict[str, Any]) -> dict[str, Any]:
    """Create the stream, or bring an existing one to this configuration; returns its info.

    Fields that `config` does not name stay as they are.
    """
    name = config["name"]
    try:
        info = await api(bus, f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return await api(bus, f"STREAM.CREATE.{name}", config, timeout=15)
    if _fits(info["config"], config):
        return info
    return await api(bus, f"STREAM.UPDATE.{name}", {**info["config"], **config}, timeout=15)


async def ensure_consumer(bus: Bus, stream: str, config: dict[str, Any]) -> dict[str, Any]:
    """Create the durable consumer, or bring an existing one to this configuration."""
    name = config["name"]
    path = f"CONSUMER.CREATE.{stream}.{name}"
    filters = config.get("filter_subjects") or []
    if len(filters) == 1:  # then the filter is in the subject, where permissions can see it
        config = {**config, "filter_subject": filters[0]}
        del config["filter_subjects"]
        path += f".{filters[0]}"
    return await api(bus, path, {"stream_name": stream, "config": config}, timeout=15)


def _fits(current: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the server's configuration already says all that is wanted."""
    for key, value in wanted.items():
        have = current.get(key)
        if isinstance(value, dict) and isinstance(have, dict):
            if not _fits(have, value):
                return False
        elif have != value and (have or value):
            return False
    return True
