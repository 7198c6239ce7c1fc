"""One admission: may this message of the edge enter the mesh, and how does it look inside?

It looks only at memory and does no I/O, so it costs microseconds however many tenants there are.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from tenantry import clock
from tenantry.context.token import REMINT, Mints, terms
from tenantry.errors import (
    BadMessage,
    BadReply,
    BadSubject,
    QuotaExceeded,
    RateLimited,
    Rejection,
    TenantSuspended,
    TenantUnknown,
    TooLarge,
    Unavailable,
    UnknownAction,
)
from tenantry.messages import Plan, RateLevel
from tenantry.volumes import stored_size
from tenantry.wire import headers as names
from tenantry.wire.trace import Trace
from tenantry_workers.router.directory import Directory, Known
from tenantry_workers.router.limits import Decision, Limiter, LocalLimiter, Meter
from tenantry_workers.router.quotas import Quotas, Standing, Verdict
from tenantry_workers.router.room import JournalRoom
from tenantry_workers.router.scopes import OWN, Limits, Scopes, meters_of
from tenantry_workers.router.volumes import Volumes

PRINCIPAL = "edge"
"""Who the context names: NATS does not tell which of a tenant's credentials was used."""

_MAX_MSG_ID = 128
_MAX_HEADERS = 8192
"""Bytes of a program's own headers: what `tenantry.bus.connection.HEADROOM` has room for."""

_STRANGER = (Meter("stranger", 2.0, 10),)
_NO_PLAN = Plan(name="none")
_NO_LIMITS = Limits((), ())
_MAX_REPLY = 512
_REPLY = re.compile(r"_INBOX\.([a-z0-9-]+)(?:\.[!-)+-\-/-=?-~]+)+")
"""Visible ASCII without `.`, `*` and `>`. Bytes that are no UTF-8 grow on their way, and for a line
that is too long the server ends the router's connection."""


class Forward(NamedTuple):
    """What an admitted message becomes."""

    subject: str
    headers: dict[str, str]
    forged: bool = False
    """Whether it had headers that only the mesh sets; they are gone."""


class Ignored(Exception):
    """Refused without an answer: the sender has got as many as it gets."""


class Limited(NamedTuple):
    """Whose message it is, and what the limits say of it."""

    tenant: str
    plan: Plan
    limits: Limits
    decision: Decision | None
    """What the rates say; None while it can't be told."""
    verdict: Verdict | None = None
    """What the quotas say; None while it can't be told, or where there are none."""
    refusal: Exception | None = None
    """Who may not send at all, and why."""

    @property
    def known(self) -> bool:
        """Whether there is nothing to wait for."""
        if self.refusal is not None:
            return True
        if self.decision is None:
            return False
        return self.verdict is not None or not self.limits.quotas or not self.decision.allowed

    @property
    def delay(self) -> float:
        """How long a quota between soft and hard holds it up, seconds."""
        if self.verdict is None:
            return 0.0
        slow = [each for each in self.verdict.between if each.quota.between == "slow"]
        return max(map(_slowness, slow), default=0.0)

    @property
    def low(self) -> bool:
        """Whether a quota between soft and hard takes its weight."""
        return self.verdict is not None and any(
            each.quota.between == "low" for each in self.verdict.between
        )


class _Minted(NamedTuple):
    token: str
    plan: Plan
    at: float
    kid: str


class Contexts:
    """The tokens in use, one a tenant, minted anew every two minutes."""

    def __init__(self, minter: Mints, *, clock: Callable[[], float] = clock.now) -> None:
        self.minter = minter
        self._clock = clock
        self._minted: dict[str, _Minted] = {}

    def token(self, tenant: str, plan: Plan, *, low: bool = False) -> str:
        """A context of `tenant` with most of its life before it; `low` has the least weight."""
        now, key = self._clock(), f"{tenant}!" if low else tenant
        minted = self._minted.get(key)
        # Below 0 the clock was set back: what was signed before may look as if from the future.
        if (
            minted is not None
            and minted.plan is plan
            and 0 <= now - minted.at < REMINT
            and minted.kid == self.minter.kid
        ):
            return minted.token
        token = self.minter.mint(
            tenant,
            plan.name,
            PRINCIPAL,
            **terms(msgspec.structs.replace(plan, weight=1) if low else plan),
            now=now,
        )
        self._minted[key] = _Minted(token, plan, now, self.minter.kid)
        return token

    def forget_idle(self) -> None:
        """Drop what would be minted anew anyway."""
        oldest = self._clock() - REMINT
        self._minted = {name: m for name, m in self._minted.items() if m.at > oldest}


class Admission:
    """The router's rules, in one place."""

    def __init__(
        self,
        directory: Directory,
        limiter: Limiter,
        contexts: Contexts,
        quotas: Quotas,
        volumes: Volumes,
        room: JournalRoom,
        *,
        largest: Callable[[], int],
    ) -> None:
        """`largest` returns the largest body that NATS takes now, bytes, whatever plans say."""
        self._largest = largest
        self._directory = directory
        self._limiter = limiter
        self._quotas = quotas
        self._volumes = volumes
        self._room = room
        self._scopes = Scopes()
        self._strangers = LocalLimiter()
        self._contexts = contexts

    def limit(self, subject: str) -> Limited:
        """Count a message on `edge.<tenant>.<service>.<action>` against its limits."""
        name, _, rest = subject[5:].partition(".")
        now = time.monotonic()
        try:
            tenant, plan = self._directory.tenant(name)
        except (TenantUnknown, TenantSuspended) as refusal:
            # What is refused anyway must not cost the others more than a few answers.
            told = self._strangers.take(name, _STRANGER, now).allowed
            return Limited(name, _NO_PLAN, _NO_LIMITS, None, refusal=refusal if told else Ignored())
        key = plan.name if tenant.override is None else f"{plan.name}!{name}"
        limits = self._scopes.of(key, plan, rest)
        decision = self._limiter.take(name, limits.meters, now)
        limited = Limited(name, plan, limits, decision)
        return self.count(limited) if limits.quotas and not limited.known else limited

    def levels(self, name: str) -> tuple[RateLevel, ...]:
        """What is left of a tenant's rates; nothing of one that may not send."""
        try:
            _, plan = self._directory.tenant(name)
        except (TenantUnknown, TenantSuspended):
            return ()
        now, found = time.monotonic(), []
        for meter in meters_of(plan):
            left, shared = self._limiter.level(name, meter, now)
            scope = "" if meter.name == OWN else meter.name
            found.append(RateLevel(scope=scope, left=round(left, 3), shared=shared))
        return tuple(found)

    def count(self, limited: Limited) -> Limited:
        """Count a message that its rates admit against its quotas, too."""
        if limited.decision is None or not limited.decision.allowed:
            return limited
        return limited._replace(verdict=self._quotas.take(limited.tenant, limited.limits.quotas))

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

        `limited` is what :meth:`limit` said of it, once that is known. Raises the
        :class:`~tenantry.errors.Rejection` that its sender gets; then no quota counts it.
        """
        limited = limited or self.limit(subject)
        if limited.refusal is not None:
            raise limited.refusal
        check_limits(limited)
        try:
            name, action = self._check(subject, reply, size, limited)
            return self._forward(name, action, limited, headers, size, trace)
        except Rejection:
            if limited.verdict is not None:
                self._quotas.refund(limited.tenant, limited.limits.quotas, limited.verdict)
            raise

    def _check(self, subject: str, reply: str, size: int, limited: Limited) -> tuple[str, Known]:
        """The action that a message is for; raises what is wrong with it."""
        tokens, plan = subject.split("."), limited.plan
        if reply and not may_answer(subject, reply):
            raise BadReply(
                "the reply subject is not in the tenant's own inbox",
                hint=f"connect with the inbox prefix _INBOX.{limited.tenant}",
            )
        if len(tokens) != 4:
            raise BadSubject(
                f"the subject has {len(tokens)} tokens",
                hint=f"use tenant.{limited.tenant}.<service>.<action>",
            )
        name = f"{tokens[2]}.{tokens[3]}"
        action = self._action(name)
        if size > plan.max_body:
            raise TooLarge(
                f"the body has {size} bytes, plan {plan.name} allows {plan.max_body}",
                hint="send less, or ask for another plan",
            )
        if size > (most := self._largest()):
            raise TooLarge(f"the body has {size} bytes, NATS takes {most} here", hint="send less")
        return name, action

    def forget_idle(self, now: float) -> None:
        """Drop what strangers have left, and volumes that are counted."""
        self._strangers.forget_idle(now)
        self._volumes.forget_idle()

    def _action(self, name: str) -> Known:
        action = self._directory.actions.get(name)
        if action is None or not action.public or action.kind == "event":
            raise UnknownAction(
                f"no action {name[:200]!r}",
                hint="check the name; who runs the service says which actions are public",
            )
        if action.kind == "request" and not action.live:
            raise Unavailable(f"nothing serves {name} now", retry_after=1.0)
        return action

    def _forward(
        self,
        name: str,
        action: Known,
        limited: Limited,
        headers: Mapping[str, str],
        size: int,
        trace: Trace,
    ) -> Forward:
        tenant, plan = limited.tenant, limited.plan
        if headers:
            _check_headers(headers)
        inside = names.from_outside(headers) if headers else {}
        dropped = len(headers) - len(inside)
        forged = False
        if dropped > (names.TRACEPARENT in headers):
            _refuse_instructions(headers)
            forged = names.is_forged(headers)
        inside[names.CONTEXT] = self._contexts.token(tenant, plan, low=limited.low)
        trace.inject(inside)
        if headers and (msg_id := names.find(headers, names.MSG_ID)):
            if len(msg_id) > _MAX_MSG_ID:
                raise BadMessage(
                    f"Nats-Msg-Id has {len(msg_id)} characters", hint=f"use at most {_MAX_MSG_ID}"
                )
            if "\n" in msg_id or "\r" in msg_id:  # they become spaces on the way to the journal
                raise BadMessage("Nats-Msg-Id has a line break", hint="write it on one line")
            # The dedup window of the journal is shared: ids are apart by tenant.
            inside[names.MSG_ID] = f"{tenant}.e.{msg_id}"
        if action.kind == "command":
            inside[names.TTL] = f"{plan.retention}s"
            stored = stored_size(f"journal.00.{tenant}.{name}", inside, size)
            self._room.take(stored)
            if plan.journal_bytes:
                self._volumes.take(tenant, plan, stored)
            return Forward(f"tenant.{tenant}.{name}", inside, forged)
        limit = min(action.timeout, plan.timeout)
        if headers and (asked := names.find(headers, names.TIMEOUT)):
            limit = min(limit, _seconds(asked))
        if limited.verdict is not None and limited.verdict.tightest is not None:
            inside |= standing_fields(limited.verdict.tightest)
        inside[names.DEADLINE] = str(int((time.time() + limit) * 1000))
        inside[names.TIMEOUT] = f"{limit:.3f}"
        return Forward(f"request.{tenant}.{name}", inside, forged)


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raise where the headers are too long, or are not what the sender wrote.

    Values that are not UTF-8 come here with U+FFFD for each byte that could not be read, so two
    different ones may look alike: nothing may be told apart or recognized by them.
    """
    text = "".join((*headers, *headers.values()))
    length = len(text.encode("utf-8", "surrogatepass")) + 4 * len(headers)  # `: ` and a line end
    if length > _MAX_HEADERS:
        raise TooLarge(f"the headers have {length} bytes", hint=f"send at most {_MAX_HEADERS}")
    if "\ufffd" in text:
        name = next(name for name, value in headers.items() if "\ufffd" in name + value)
        raise BadMessage(
            f"the header {name[:80]} is not UTF-8, or has U+FFFD for what was not",
            hint="encode the values of headers as UTF-8",
        )


def _refuse_instructions(headers: Mapping[str, str]) -> None:
    if (name := names.instruction(headers)) is not None:
        raise BadMessage(
            f"the header {name[:80]} is not supported: it would not be obeyed",
            hint="leave it out; of NATS's own headers only Nats-Msg-Id is taken",
        )


def check_limits(limited: Limited) -> None:
    """Raise what a sender gets whose message is over a rate or quota."""
    plan, decision, verdict = limited.plan, limited.decision, limited.verdict
    assert decision is not None  # noqa: S101  (who asks has waited for it)
    meter = decision.meter
    if decision.away:
        raise Unavailable(
            f"the limit {meter.name} can't be checked now", retry_after=decision.retry_after
        )
    if not decision.allowed:
        which = "the plan's" if meter.name == OWN else f"{meter.name}'s"
        raise RateLimited(
            f"over {which} {meter.rate:g} messages a second",
            retry_after=decision.retry_after,
            violated_policies=[meter.name],
            plan=plan.name,
            quota=meter.burst,
            window=max(1, math.ceil(meter.burst / meter.rate)),
        )
    if verdict is None:
        return
    if verdict.away:
        raise Unavailable("the quota can't be checked now", retry_after=1.0)
    if (over := verdict.refused) is not None:
        quota = over.quota
        of = f" of {quota.scope}" if quota.scope else ""
        raise QuotaExceeded(
            f"the {quota.limit} messages{of} that the plan allows in a {quota.period} are used up",
            hint=f"it begins anew with the next {quota.period} (UTC)",
            retry_after=over.reset,
            violated_policies=[quota.name],
            plan=plan.name,
            quota=quota.limit,
            window=over.window,
        )


def rate_fields(rejection: RateLimited) -> dict[str, str]:
    """The `RateLimit` fields of a rejection (IETF draft-ietf-httpapi-ratelimit-headers)."""
    quota, window = rejection.extensions["quota"], rejection.extensions["window"]
    name = rejection.extensions["violated_policies"][0]
    reset = math.ceil(rejection.retry_after or 1)
    return _fields(name, quota, window, 0, reset)


def standing_fields(standing: Standing) -> dict[str, str]:
    """The same for a message that was admitted: what is left of its tightest quota."""
    quota = standing.quota
    return _fields(quota.name, quota.limit, standing.window, standing.left, standing.reset)


def _fields(name: str, quota: int, window: int, left: int, reset: int) -> dict[str, str]:
    return {
        names.RATE_POLICY: f'"{name}";q={quota};w={window}',
        names.RATE: f'"{name}";r={left};t={reset}',
    }


def _slowness(standing: Standing) -> float:
    """Nothing at soft, all of the quota's delay at hard."""
    quota = standing.quota
    span = max(1, quota.limit - quota.threshold)
    return quota.delay * min(1.0, (standing.used - quota.threshold) / span)


def may_answer(subject: str, reply: str) -> bool:
    """Whether a rejection may go to `reply`: only into the inbox of the subject's own tenant."""
    inbox = _REPLY.fullmatch(reply) if len(reply) <= _MAX_REPLY else None
    return inbox is not None and inbox[1] == subject.split(".", 2)[1]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < names.MAX_TIMEOUT:
        raise BadMessage(f"{names.TIMEOUT} is {text[:40]!r}", hint="give seconds, as in 2.5")
    return value
