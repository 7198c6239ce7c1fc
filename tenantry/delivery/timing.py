"""The times of the delivery protocol, in seconds, and what must hold between them."""

from __future__ import annotations

RENEW = 1.0
"""Between two renewals of a lease."""

LEASE = 2.0
"""A lease is valid for so long after the renewal that was acknowledged last had been sent."""

TAKEOVER = 2.3
"""Silence after which others may fence a lease, from the renewal that they heard last."""

WATCH = 0.1
"""Between two looks at who is silent."""

RELOAD = 15.0
"""Between two readings of all leases, in case a renewal was not heard."""

CLAIM_POLL = 0.3
"""Between two looks at a partition whose former owner has not released it yet."""

CALL = 5.0
"""How long an answer of JetStream is waited for."""

MARGIN = 5.0
"""Added to the age of a checkpoint: what was under way when it was written ends in this time."""

CHECKPOINT = 0.1
"""Between two checkpoints of a partition with progress."""

BYTES_A_SECOND = 500_000
"""Larger checkpoints are written less often: at most so many bytes a second for a partition."""

UNSAVED = 64
"""Messages begun since the last checkpoint after which one is written at once."""

NOT_OURS = 5_000
"""Sequences without a message for the service after which a checkpoint is written all the same."""

BACKLOG_LOOK = 0.25
"""How long a lane must be full before a tenant that fills it is sidelined."""

LETTER_RETRY = 5.0
"""Before a dead letter that could not be written is tried again."""

NOT_BEGUN_RETRY = 1.0
"""Before a message is tried again for which the mesh could not do what comes before its handler."""

UNKNOWN_RETRY = 30.0
"""Before a message that only a newer version knows is looked at again."""

UNKNOWN_TRIES = 20

DEDUP_WINDOW = 120.0
"""How long the journal knows the id of a message, by default."""

assert LEASE >= 2 * RENEW, "one lost renewal must not lose the lease"  # noqa: S101
assert TAKEOVER >= LEASE * 1.05 + 0.1, "clocks may run 5 % apart, a message takes time"  # noqa: S101
assert TAKEOVER + WATCH + CLAIM_POLL < 3.0, "a partition stands still for less than 3 s"  # noqa: S101
assert MARGIN >= CALL, "a write may be acknowledged after the checkpoint was written"  # noqa: S101
assert DEDUP_WINDOW > 10 * TAKEOVER, "what a takeover publishes again must be dropped"  # noqa: S101
