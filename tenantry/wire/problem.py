"""Rejections on the wire: problem details (RFC 9457) in the NATS service convention (ADR-32)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from tenantry.errors import BY_CODE, HandlerFailed, Rejection
from tenantry.wire import codec
from tenantry.wire import headers as names

MEDIA_TYPE = "application/problem+json"

_MAX_TEXT = 4_000
"""Characters of a detail or hint; what is over is cut."""

_MAX_LINE = 300
"""Characters of the text in a header."""


def dump(
    rejection: Rejection, trace_id: str, *, room: int = 65_536
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a rejection, small enough to be sent whatever it says.

    Extensions for which `room` (bytes) does not suffice are left out, as are those that JSON can't
    carry.
    The member `error` has the shape of a JetStream API error, so that any client's JetStream
    publish raises it instead of failing on a reply that is no PubAck.
    """
    headers = {
        names.ERROR_CODE: str(rejection.status),
        names.ERROR: f"{rejection.code}: {_line(rejection.message)}",
        names.CONTENT_TYPE: MEDIA_TYPE,
    }
    problem: dict[str, Any] = {
        "type": rejection.type or f"urn:tenantry:error:{rejection.code}",
        "title": rejection.title,
        "status": rejection.status,
        "detail": _text(rejection.message),
        "code": rejection.code,
        "instance": f"urn:trace:{trace_id}",
    }
    if rejection.hint:
        problem["hint"] = _text(rejection.hint)
    if rejection.retry_after is not None and math.isfinite(rejection.retry_after):
        seconds = max(1, math.ceil(rejection.retry_after))
        headers[names.RETRY_AFTER] = str(seconds)
        problem["retry_after"] = round(rejection.retry_after, 3)
    problem["error"] = {
        "code": rejection.status,
        "err_code": 0,
        "description": f"{rejection.code}: {_line(rejection.message)}",
    }
    if rejection.extensions:
        left = room - len(msgspec.json.encode(problem))
        _extend(problem, rejection.extensions, left)
    return headers, msgspec.json.encode(problem)


def _extend(problem: dict[str, Any], extensions: Mapping[str, Any], left: int) -> None:
    """Add the extensions that fit into `left` bytes; the others must not keep them back."""
    for name, value in extensions.items():
        member = name.replace("_", "-")
        if member in problem:
            continue
        try:
            body = codec.encode(value)
            size = len(msgspec.json.encode(member)) + len(body) + len(":,")
        except (TypeError, ValueError, RecursionError):
            continue
        if size <= left:
            left -= size
            problem[member] = msgspec.Raw(body)


def load(headers: Mapping[str, str] | None, body: bytes) -> Rejection | None:
    """The rejection that a reply is, or None where the reply is a result."""
    if not headers or names.ERROR_CODE not in headers:
        return None
    try:
        problem = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = {}
    kind = BY_CODE.get(str(problem.get("code")), HandlerFailed)
    detail = str(problem.get("detail") or headers.get(names.ERROR, "rejected"))
    known = {"type", "title", "status", "detail", "code", "hint", "retry_after", "error"}
    extensions = {
        name.replace("-", "_"): value for name, value in problem.items() if name not in known
    }
    rejection = kind(detail, hint=str(problem.get("hint", "")), **extensions)
    retry = problem.get("retry_after")
    rejection.retry_after = float(retry) if isinstance(retry, int | float) else None
    return rejection


def _line(text: str) -> str:
    """Header values are one line."""
    return " ".join(_text(text).split())[:_MAX_LINE]


def _text(text: str) -> str:
    """The text as far as it is sent: cut, and without half a surrogate pair, as in odd names."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}…"
    return text.encode("utf-8", "replace").decode()
