"""Which of the router's refusals look like attacks, and which are the mistakes of every day."""

from __future__ import annotations

from tenantry.bus import Message
from tenantry.errors import BadReply, BadSubject, Rejection, TenantUnknown, UnknownAction
from tenantry.runtime.audit import Audit
from tenantry.wire import headers as names
from tenantry_workers.router.directory import Directory


class Suspicion:
    """Tells the audit of them.

    Whose credentials were used is the subject's tenant: nats-server lets no other publish there.
    """

    def __init__(self, audit: Audit, directory: Directory) -> None:
        self._audit = audit
        self._directory = directory

    def forged(self, message: Message) -> None:
        """A message was admitted without headers that only the mesh sets."""
        self._audit.refused(
            "forged_header",
            tenant=_tenant(message),
            subject=message.subject,
            why="it had headers that only the mesh sets; none went on",
        )

    def stranger(self, message: Message) -> None:
        """A message of nobody's that was not even answered."""
        self._unknown(message)

    def refused(self, message: Message, why: Rejection) -> None:
        """A message was refused."""
        if message.headers and names.is_forged(message.headers):
            self.forged(message)
        if isinstance(why, BadReply):
            self._reply(message)
        elif isinstance(why, BadSubject | UnknownAction):
            self._subject(message)
        elif isinstance(why, TenantUnknown):
            self._unknown(message)

    def _reply(self, message: Message) -> None:
        """A program without an inbox prefix of its own forgot it; that is no attack."""
        root, _, rest = message.reply.partition(".")
        other = rest.partition(".")[0]
        known = other in self._directory.tenants.rows
        if root == "_INBOX" and not known:
            return
        tenant = _tenant(message)
        self._audit.refused(
            "foreign_reply",
            tenant=tenant,
            victim=other if known and other != tenant else "",
            subject=message.subject,
            why="the answer would have gone to a subject that is not the tenant's",
        )

    def _subject(self, message: Message) -> None:
        tokens = message.subject.split(".")[2:]
        if any(token in ("*", ">") or token.startswith("$") for token in tokens):
            self._audit.refused(
                "bad_subject",
                tenant=_tenant(message),
                subject=message.subject,
                why="a wildcard, or a name of NATS's own, where a name belongs",
            )

    def _unknown(self, message: Message) -> None:
        """Good credentials of a tenant of whom there is no record; or not yet, for a moment."""
        tenant, rows = _tenant(message), self._directory.tenants.rows
        if tenant not in rows:
            self._audit.refused(
                "unknown_tenant",
                tenant=tenant,
                subject=message.subject,
                why="the credentials are signed, but there is no record of the tenant",
                holds=lambda: tenant not in self._directory.tenants.rows,
            )


def _tenant(message: Message) -> str:
    return message.subject.split(".", 2)[1]
