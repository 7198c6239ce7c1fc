"""The context of a request of the control plane: it has no tenant."""

from __future__ import annotations

from typing import Any, NamedTuple


class PlatformContext(NamedTuple):
    """What a handler of a platform service gets: the request id and the service's resources."""

    request_id: str
    resources: Any = None
