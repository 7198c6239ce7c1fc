"""Rejections on the wire: problem details (RFC 9457) in the NATS service convention (ADR-32)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from tenantry.errors import BY_CODE, HandlerFailed, Rejection
from tenantry.wire import headers as names

MEDIA_TYPE = "application/problem+json"


def dump(rejection: Rejection, trace_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of a rejection.

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
    for name, value in rejection.extensions.items():
        try:
            member = msgspec.Raw(msgspec.json.encode(value))
        except (TypeError, ValueError, RecursionError):
            continue  # JSON can't carry it; the rest still reaches the asker
        problem.setdefault(name.replace("_", "-"), member)
    problem["error"] = {
        "code": rejection.status,
        "err_code": 0,
        "description": f"{rejection.code}: {_line(rejection.message)}",
    }
    return headers, msgspec.json.encode(problem)


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
    return " ".join(_text(text).split())[:300]


def _text(text: str) -> str:
    """What UTF-8 can carry of a text: half of a surrogate pair, as in odd file names, it can't."""
    return text.encode("utf-8", "replace").decode()
