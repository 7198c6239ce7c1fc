"""The buckets that routers share, in Redis or Valkey: one node or a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError

from tenantry.errors import SetupError
from tenantry_workers.router.limits.ledger import Answer, Order

OLDEST = (6, 2)
"""The oldest version of Redis that will do."""

CONNECTIONS = 4
"""Round trips with orders under way at the same time."""

STALE = 0.5
"""An order that reaches the script later than that after it was sent grants nothing, seconds."""

_SCRIPT = files(__package__).joinpath("lease.lua").read_text()
_SHA = hashlib.sha1(_SCRIPT.encode()).hexdigest()  # noqa: S324  (it is how Redis names scripts)
_CLUSTER = {"redis+cluster": "redis", "rediss+cluster": "rediss"}

Failures = (RedisError, OSError, TimeoutError)
"""What a call to the store can raise."""


class Reply(NamedTuple):
    """The answer to one order."""

    answers: list[Answer]
    late: bool
    """Whether the order came too late to grant anything."""


class Store:
    """Where leases come from. Nothing here is tried twice: the caller decides what a failure means.

    `url` is `redis://`, `rediss://` (TLS), or either with `+cluster`; user and password of an ACL
    stand in it. Raises :class:`SetupError` for another one.
    """

    def __init__(self, url: str) -> None:
        self.name = redacted(url)
        """The URL without user and password."""
        self._leases = _client(url, "leases", CONNECTIONS)
        self._probes = _client(url, "probe", 1)
        self._clustered = urlsplit(url).scheme in _CLUSTER
        self._ahead: float | None = None
        """By how much the server's clock is ahead of ours."""

    async def check(self) -> None:
        """Raise :class:`SetupError` where this server won't do, one of `Failures` for no answer."""
        try:
            await self.probe()
            found = await self._probes.info("server")
        except NoPermissionError:
            return  # an ACL without INFO: the script will tell
        except AuthenticationError as error:
            raise SetupError(
                f"{self.name} refuses the user or the password", hint="check the URL's credentials"
            ) from error
        first = found if "redis_version" in found else next(iter(found.values()))
        check_version(first, self.name)

    async def probe(self) -> float:
        """How long a round trip takes on a connection that stands, seconds."""
        await self._probes.ping()
        begin = time.monotonic()
        await self._probes.ping()
        return time.monotonic() - begin

    async def lease(self, orders: Sequence[Order]) -> list[Reply]:
        """Place these orders in one round trip; raises one of `Failures` where one fails."""
        stands = 0.0
        if self._ahead is not None and not self._clustered:  # nodes have clocks of their own
            stands = time.monotonic() + self._ahead + STALE
        calls = [_arguments(order, int(stands * 1e6)) for order in orders]
        begin = time.monotonic()
        raw = await self._run("EVALSHA", _SHA, calls)
        if lacking := [n for n, answer in enumerate(raw) if isinstance(answer, NoScriptError)]:
            again = await self._run("EVAL", _SCRIPT, [calls[n] for n in lacking])
            for n, answer in zip(lacking, again, strict=True):
                raw[n] = answer
        for answer in raw:
            if isinstance(answer, Exception):
                raise answer
        self._ahead = raw[-1][0] / 1e6 - (begin + time.monotonic()) / 2
        return [_reply(answer) for answer in raw]

    async def _run(self, command: str, script: str, calls: list[list[Any]]) -> list[Any]:
        pipe = self._leases.pipeline(transaction=False)
        for arguments in calls:
            pipe.execute_command(command, script, *arguments)
        return list(await pipe.execute(raise_on_error=False))

    async def warm(self) -> None:
        """Open the connections: no order should wait for that. Raises one of `Failures`."""
        await asyncio.gather(*(self._leases.ping() for _ in range(CONNECTIONS)))

    async def close(self) -> None:
        """Close for good."""
        await self._leases.aclose()
        await self._probes.aclose()


def key(tenant: str, meter: str) -> str:
    """The bucket of a tenant's meter; all of a tenant are on one node of a cluster."""
    return f"tenantry:{{{tenant}}}:rate:{meter}"


def redacted(url: str) -> str:
    """A URL as it may be logged."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_version(info: Mapping[str, Any], name: str) -> None:
    """Raise :class:`SetupError` where the server is older than `OLDEST`."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise SetupError(
            f"{name} is Redis {version}", hint=f"use Redis {wanted} or later, or any Valkey"
        )


def _client(url: str, purpose: str, connections: int) -> Any:
    scheme = urlsplit(url).scheme
    options: dict[str, Any] = {
        "client_name": f"tenantry-router-{purpose}",
        "socket_connect_timeout": 0.5,
        "max_connections": connections,
        "protocol": 2,
    }
    try:
        if scheme in _CLUSTER:
            plain = url.replace(scheme, _CLUSTER[scheme], 1)
            options["max_connections"] = connections + 4
            return RedisCluster.from_url(plain, retry=Retry(NoBackoff(), 0), **options)
        if scheme in ("redis", "rediss", "unix"):
            retry = Retry(NoBackoff(), 0)
            return Redis.from_url(url, retry=retry, **options)
    except ValueError as error:
        raise SetupError(f"{redacted(url)} is no URL of Redis") from error
    raise SetupError(
        f"{redacted(url)} is no URL of Redis",
        hint="use redis://HOST:PORT, rediss:// for TLS, redis+cluster:// for a cluster",
    )


def _arguments(order: Order, stands: int) -> list[Any]:
    keys = [key(order.account.tenant, line.meter.name) for line, *_ in order.entries]
    arguments: list[Any] = [len(keys), *keys, stands]
    for line, charge, age, want in order.entries:
        meter = line.meter
        arguments += (meter.rate, meter.burst, charge, int(age * 1e6), want, int(meter.shadow))
    return arguments


def _reply(raw: Sequence[int]) -> Reply:
    return Reply(
        [
            Answer(granted, room / 1000, wait / 1e6)
            for granted, room, wait in zip(raw[2::3], raw[3::3], raw[4::3], strict=True)
        ],
        bool(raw[1]),
    )
