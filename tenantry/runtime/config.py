"""`mesh.toml`: what the control plane sets up in JetStream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tenantry.errors import SetupError
from tenantry.streams import AuditLimits, DeadLimits, JournalLimits, ScheduleLimits

FILE = "mesh.toml"

TEMPLATE = """\
# What the control plane (`tenantry run tenants`) sets up in JetStream. Every line is optional;
# the values below are the defaults. A change is applied when the tenants worker starts.

# Copies of the key-value buckets in a cluster: 1, 3 or 5.
replicas = 1

[journal]
max_bytes = 10737418240   # bytes on disk; a full journal refuses, it never forgets; -1: no limit
max_age = 0               # oldest message, seconds; 0 leaves it to each plan's retention
max_message = 1048576     # largest message, bytes
replicas = 1              # copies in a cluster: 1, 3 or 5
dedup_window = 120        # how long a Nats-Msg-Id is remembered, seconds

# What services gave up on (`tenantry dead`).
[dead]
max_bytes = 1073741824    # bytes on disk; -1: no limit
max_age = 0               # oldest one, seconds; 0 keeps them until somebody decides
replicas = 1              # copies in a cluster: 1, 3 or 5

# Commands that services send later (`tenantry schedules`).
[schedules]
max_bytes = 1073741824    # bytes on disk; when it is full, no more are taken; -1: no limit
replicas = 1              # copies in a cluster: 1, 3 or 5

# Refusals that look like attacks (`tenantry audit`).
[audit]
max_bytes = 268435456     # bytes on disk; when it is full the oldest goes; -1: no limit
max_age = 7776000         # oldest one, seconds: 90 days; 0: no limit
replicas = 1              # copies in a cluster: 1, 3 or 5
"""


class MeshConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    replicas: Annotated[Literal[1, 3, 5], Meta(description="copies of the buckets")] = 1
    journal: JournalLimits = JournalLimits()
    dead: DeadLimits = DeadLimits()
    schedules: ScheduleLimits = ScheduleLimits()
    audit: AuditLimits = AuditLimits()


def load(path: Path) -> MeshConfig:
    """Read `mesh.toml`; a file that is not there means the defaults.

    Raises :class:`SetupError` with the path of the fault.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=MeshConfig)
    except FileNotFoundError:
        return MeshConfig()
    except (msgspec.MsgspecError, ValueError) as error:
        raise SetupError(f"{path}: {error}", hint="see the comments of a fresh mesh.toml") from None
    except OSError as error:
        raise SetupError(f"{path} can't be read: {error.strerror}") from None
