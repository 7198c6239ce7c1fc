"""One admission: may this message of the edge enter the mesh, and how does it look inside?

It looks only at memory and does no I/O, so it costs microseconds however many tenants there are.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tenantry.context.token import REMINT, Minter
from tenantry.errors import (
    BadMessage,
    BadReply,
    BadSubject,
    RateLimited,
    Rejection,
    TenantSuspended,
    TenantUnknown,
    TooLarge,
    Unavailable,
    UnknownAction,
)
from tenantry.messages import Plan
from tenantry.wire import headers as names
from tenantry.wire.trace import Trace
from tenantry_workers.router.directory import Directory, Known
from tenantry_workers.router.limits import Decision, Limiter, LocalLimiter, Meter
from tenantry_workers.router.scopes import meters

PRINCIPAL = "edge"
"""Who the context names: NATS does not tell which of a tenant's credentials was used."""

_MAX_MSG_ID = 128
_MAX_HEADERS = 8192
_STRANGER = (Meter("stranger", 2.0, 10),)
_NO_PLAN = Plan(name="none")
_REPLY = re.compile(r"_INBOX\.([a-z0-9-]+)(?:\.[^\s.*>]+)+")


class Forward(NamedTuple):
    """What an admitted message becomes."""

    subject: str
    headers: dict[str, str]


class Ignored(Exception):
    """Refused without an answer: the sender has had enough of them."""


class Limited(NamedTuple):
    """Whose message it is, and what the limits say of it."""

    tenant: str
    plan: Plan
    meters: tuple[Meter, ...]
    decision: Decision | None
    """None while the limiter can't tell."""
    refusal: Exception | None = None
    """Who may not send at all, and why."""


class _Minted(NamedTuple):
    token: str
    plan: Plan
    at: float


class Contexts:
    """The tokens in use, one a tenant, minted anew about twice a minute."""

    def __init__(self, minter: Minter, *, clock: Callable[[], float] = time.time) -> None:
        self.minter = minter
        self._clock = clock
        self._minted: dict[str, _Minted] = {}

    def token(self, tenant: str, plan: Plan) -> str:
        """A context of `tenant` with most of its life before it."""
        now = self._clock()
        minted = self._minted.get(tenant)
        # Below 0 the clock was set back: what was signed before may look as if from the future.
        if minted is not None and minted.plan is plan and 0 <= now - minted.at < REMINT:
            return minted.token
        token = self.minter.mint(tenant, plan.name, PRINCIPAL, retention=plan.retention, now=now)
        self._minted[tenant] = _Minted(token, plan, now)
        return token

    def forget_idle(self) -> None:
        """Drop what would be minted anew anyway."""
        oldest = self._clock() - REMINT
        self._minted = {name: m for name, m in self._minted.items() if m.at > oldest}


class Admission:
    """The router's rules, in one place."""

    def __init__(self, directory: Directory, limiter: Limiter, contexts: Contexts) -> None:
        self._directory = directory
        self._limiter = limiter
        self._strangers = LocalLimiter()
        self._contexts = contexts

    def limit(self, subject: str) -> Limited:
        """Count a message on `edge.<tenant>.<service>.<action>` against its limits."""
        name, _, rest = subject[5:].partition(".")
        try:
            tenant, plan = self._directory.tenant(name)
        except (TenantUnknown, TenantSuspended) as refusal:
            # What is refused anyway must not cost the others more than a few answers.
            told = self._strangers.take(name, _STRANGER, time.monotonic()).allowed
            return Limited(name, _NO_PLAN, (), None, refusal if told else Ignored())
        over = meters(plan, rest)
        return Limited(tenant.id, plan, over, self._limiter.take(tenant.id, over, time.monotonic()))

    def admit(
        self,
        subject: str,
        reply: str,
        headers: Mapping[str, str],
        size: int,
        trace: Trace,
        limited: Limited | None = None,
    ) -> Forward:
        """What becomes of a message on `edge.<tenant>.<service>.<action>`.

        `limited` is what :meth:`limit` said of it, with its decision. Raises the
        :class:`~tenantry.errors.Rejection` that its sender gets.
        """
        tenant, plan, _, decision, refusal = limited or self.limit(subject)
        if refusal is not None:
            raise refusal
        if decision is None or not decision.allowed:
            raise refused(decision, plan)
        tokens = subject.split(".")
        if reply and not may_answer(subject, reply):
            raise BadReply(
                "the reply subject is not in the tenant's own inbox",
                hint=f"connect with the inbox prefix _INBOX.{tenant}",
            )
        if len(tokens) != 4:
            raise BadSubject(
                f"the subject has {len(tokens)} tokens",
                hint=f"use tenant.{tenant}.<service>.<action>",
            )
        name = f"{tokens[2]}.{tokens[3]}"
        action = self._action(name)
        if size > plan.max_body:
            raise TooLarge(
                f"the body has {size} bytes, plan {plan.name} allows {plan.max_body}",
                hint="send less, or ask for another plan",
            )
        return self._forward(name, action, tenant, plan, headers, trace)

    def forget_idle(self, now: float) -> None:
        """Drop what strangers have left."""
        self._strangers.forget_idle(now)

    def _action(self, name: str) -> Known:
        action = self._directory.actions.get(name)
        if action is None or not action.public or action.kind == "event":
            raise UnknownAction(
                f"no action {name[:200]!r}", hint="see `tenantry services` for what there is"
            )
        if action.kind == "request" and not action.live:
            raise Unavailable(f"nothing serves {name} now", retry_after=1.0)
        return action

    def _forward(
        self,
        name: str,
        action: Known,
        tenant: str,
        plan: Plan,
        headers: Mapping[str, str],
        trace: Trace,
    ) -> Forward:
        if headers and (size := sum(map(len, headers)) + sum(map(len, headers.values()))) > (
            _MAX_HEADERS
        ):
            raise TooLarge(f"the headers have {size} bytes", hint=f"send at most {_MAX_HEADERS}")
        inside = names.from_outside(headers) if headers else {}
        inside[names.CONTEXT] = self._contexts.token(tenant, plan)
        trace.inject(inside)
        if headers and (msg_id := names.find(headers, names.MSG_ID)):
            if len(msg_id) > _MAX_MSG_ID:
                raise BadMessage(
                    f"Nats-Msg-Id has {len(msg_id)} characters", hint=f"use at most {_MAX_MSG_ID}"
                )
            # The dedup window of the journal is shared: ids are apart by tenant.
            inside[names.MSG_ID] = f"{tenant}.e.{msg_id}"
        if action.kind == "command":
            inside[names.TTL] = f"{plan.retention}s"
            return Forward(f"tenant.{tenant}.{name}", inside)
        limit = min(action.timeout, plan.timeout)
        if headers and (asked := names.find(headers, names.TIMEOUT)):
            limit = min(limit, _seconds(asked))
        inside[names.DEADLINE] = str(int((time.time() + limit) * 1000))
        return Forward(f"request.{tenant}.{name}", inside)


def refused(decision: Decision | None, plan: Plan) -> Rejection:
    """The answer to a message that a limit does not admit."""
    if decision is None or decision.away:
        return Unavailable(
            "the tenant's limits can't be checked now",
            retry_after=decision.retry_after if decision is not None else 1.0,
        )
    meter = decision.meter
    which = "the plan's" if meter.name == "default" else f"{meter.name}'s"
    return RateLimited(
        f"over {which} {meter.rate:g} messages a second",
        retry_after=decision.retry_after,
        violated_policies=[meter.name],
        plan=plan.name,
        quota=meter.burst,
        window=max(1, math.ceil(meter.burst / meter.rate)),
    )


def rate_fields(rejection: RateLimited) -> dict[str, str]:
    """The `RateLimit` fields of a rejection (IETF draft-ietf-httpapi-ratelimit-headers)."""
    quota, window = rejection.extensions["quota"], rejection.extensions["window"]
    name = rejection.extensions["violated_policies"][0]
    reset = math.ceil(rejection.retry_after or 1)
    return {
        "RateLimit-Policy": f'"{name}";q={quota};w={window}',
        "RateLimit": f'"{name}";r=0;t={reset}',
    }


def may_answer(subject: str, reply: str) -> bool:
    """Whether a rejection may go to `reply`: only into the inbox of the subject's own tenant."""
    inbox = _REPLY.fullmatch(reply)
    return inbox is not None and inbox[1] == subject.split(".", 2)[1]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 86_400:
        raise BadMessage(f"{names.TIMEOUT} is {text[:40]!r}", hint="give seconds, as in 2.5")
    return value
