"""Every error of Tenantry, one tree, each with a stable code.

    TenantryError
    ├── Rejection                 an answer that a message can get; travels over the wire
    │   ├── BadSubject            400  bad_subject
    │   ├── BadMessage            400  bad_message        (path: where in the body)
    │   ├── BadReply              400  bad_reply
    │   ├── BadContext            401  bad_context
    │   │   └── UnknownKey
    │   ├── NotAllowed            403  not_allowed
    │   ├── TenantUnknown         403  tenant_unknown
    │   ├── TenantSuspended       403  tenant_suspended
    │   ├── UnknownAction         404  unknown_action
    │   ├── NotFound              404  not_found
    │   ├── Conflict              409  conflict
    │   ├── Superseded            409  superseded
    │   │   ├── LaneLost
    │   │   └── Repeated
    │   ├── TooLarge              413  too_large
    │   ├── Hopeless              422  hopeless           (never tried again)
    │   ├── RateLimited           429  rate_limited       (retry_after: seconds)
    │   │   └── QuotaExceeded     429  quota_exceeded
    │   ├── HandlerFailed         500  handler_failed
    │   ├── Unavailable           503  unavailable
    │   ├── DeadlineExceeded      504  deadline_exceeded
    │   └── TooDeep               508  too_deep           (never tried again)
    ├── ConnectionFailed          cannot reach NATS, or NATS refused the credentials
    ├── JetStreamError            JetStream's API refused (code, err_code)
    ├── TooMuchEmitted            a handler emits more than one message may (never tried again)
    ├── DeclarationError          a service is declared wrongly
    └── SetupError                files, ports, programs or options of this machine are wrong

A :class:`Rejection` that a handler raises reaches the asker as it is; any other exception becomes
:class:`HandlerFailed`, which tells nothing of the inside. Statuses are HTTP's (RFC 9110), bodies
problem details (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class TenantryError(Exception):
    """Base of all errors; `hint` says what to do about it."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConnectionFailed(TenantryError):
    """NATS can't be reached, or refuses the credentials."""

    code = "connection_failed"


class JetStreamError(TenantryError):
    """JetStream's API answered with an error; `status` and `err_code` are the server's own."""

    code = "jetstream"

    def __init__(self, message: str, *, status: int = 500, err_code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.err_code = err_code


class DeclarationError(TenantryError):
    """A service is declared wrongly: found when the module is imported or registered."""

    code = "declaration"


class SetupError(TenantryError):
    """Something on this machine is missing, taken, unreadable or from another version."""

    code = "setup"


class TooMuchEmitted(TenantryError):
    """A handler emits or sends more than one message may: the work has to be split."""

    code = "too_much_emitted"
    retry = False
    """No other try can help."""


class Rejection(TenantryError):
    """What a message is answered with instead of a result.

    `extensions` are further members of the problem details (RFC 9457, section 3.2).
    `retry_after` is in seconds.
    """

    code = "rejected"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Rejected"
    type: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        /,
        *,
        hint: str = "",
        retry_after: float | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.extensions = extensions
        self.retry = True
        """Whether a stored message may be tried again after this."""
        self.cause = ""
        """What lies behind it, for logs and dead letters alone: it is never sent to an asker."""
        self.inside = False
        """Whether something inside the mesh gave it to a handler: then it is not for the asker."""

    @property
    def logged(self) -> str:
        """What a log may show of it."""
        return str(self)


class BadSubject(Rejection):
    """The subject does not follow `tenant.<id>.<service>.<action>`."""

    code, status, title = "bad_subject", 400, "Malformed subject"


class BadMessage(Rejection):
    """The body can't be decoded or does not fit the action's schema; `path` says where."""

    code, status, title = "bad_message", 400, "Malformed message"

    def __init__(
        self, message: str, /, *, path: str = "$", hint: str = "", **extensions: Any
    ) -> None:
        super().__init__(message, hint=hint, path=path, **extensions)
        self.path = path
        self.quotes = False
        """Whether the text may repeat what the sender wrote."""

    @property
    def logged(self) -> str:
        """What a log may show of it: never what a tenant has sent."""
        return "the body does not fit" if self.quotes else str(self)


class BadReply(Rejection):
    """The reply subject lies outside the tenant's own inbox."""

    code, status, title = "bad_reply", 400, "Reply subject not allowed"


class BadContext(Rejection):
    """The tenant context is missing, forged, expired or of another tenant."""

    code, status, title = "bad_context", 401, "Tenant context not valid"


class UnknownKey(BadContext):
    """The context is signed by a key that this worker does not know, perhaps not yet."""


class NotAllowed(Rejection):
    """The principal may not do this."""

    code, status, title = "not_allowed", 403, "Not allowed"


class TenantUnknown(Rejection):
    """No such tenant, or it was deleted."""

    code, status, title = "tenant_unknown", 403, "Tenant unknown"


class TenantSuspended(Rejection):
    """The tenant is suspended."""

    code, status, title = "tenant_suspended", 403, "Tenant suspended"


class UnknownAction(Rejection):
    """No service declares this action for the asker."""

    code, status, title = "unknown_action", 404, "Unknown action"


class NotFound(Rejection):
    """The thing that a message names does not exist."""

    code, status, title = "not_found", 404, "Not found"


class Conflict(Rejection):
    """The thing exists already, or changed meanwhile."""

    code, status, title = "conflict", 409, "Conflict"


class Superseded(Rejection):
    """A later message of this tenant has already been handled here: this one comes too late."""

    code, status, title = "superseded", 409, "Superseded"


class LaneLost(Superseded):
    """Another replica has taken over: what this one still does must not count."""


class Repeated(Superseded):
    """This very message has been committed before: nothing is left to do but to settle it."""


class TooLarge(Rejection):
    """The body is larger than the tenant's plan allows."""

    code, status, title = "too_large", 413, "Message too large"


class Hopeless(Rejection):
    """The handler says that no retry can help: a stored message becomes a dead letter at once."""

    code, status, title = "hopeless", 422, "Can't be done"


class RateLimited(Rejection):
    """The tenant is over its plan's rate, or has too much waiting at a service already.

    The type is IANA's (https://www.iana.org/assignments/http-problem-types).
    """

    code, status, title = "rate_limited", 429, "Quota exceeded"
    type = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class QuotaExceeded(RateLimited):
    """The tenant has used all that its plan allows: for the day or month, or of the journal."""

    code = "quota_exceeded"


class HandlerFailed(Rejection):
    """The handler failed; the reason is in the service's own log, under the trace id."""

    code, status, title = "handler_failed", 500, "Handler failed"


class Unavailable(Rejection):
    """Nobody can serve this now; trying again later may help."""

    code, status, title = "unavailable", 503, "Unavailable"


class DeadlineExceeded(Rejection):
    """No answer within the deadline."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"


class TooDeep(Rejection):
    """Too many messages of services led to this one: they cause each other in a circle."""

    code, status, title = "too_deep", 508, "Loop detected"


BY_CODE: dict[str, type[Rejection]] = {
    kind.code: kind
    for kind in (
        BadSubject,
        BadMessage,
        BadReply,
        BadContext,
        NotAllowed,
        TenantUnknown,
        TenantSuspended,
        UnknownAction,
        NotFound,
        Conflict,
        Superseded,
        TooLarge,
        Hopeless,
        QuotaExceeded,
        RateLimited,
        HandlerFailed,
        Unavailable,
        DeadlineExceeded,
        TooDeep,
    )
}
"""Every rejection by its code: how a client turns a problem back into an exception."""


@contextmanager
def from_inside() -> Iterator[None]:
    """Mark the rejections of a block as ones that the mesh itself gave, not the handler."""
    try:
        yield
    except Rejection as rejection:
        rejection.inside = True
        raise
