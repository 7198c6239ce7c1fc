"""Which stores will do, and how they are reached: users, TLS, clusters, versions."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenantry.errors import SetupError
from tenantry_workers.router.limits import Meter
from tenantry_workers.router.limits.store import Store, check_version, key
from tests.integration.limits.oracle import Log, play
from tests.valkey import Slow, Valkey, form_cluster

METER = Meter("default", 0.01, 100)
RULES = ("on", ">s3cret", "~tenantry:*", "+@read", "+@write", "+@scripting", "+time", "+ping")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Valkey]:
    """A server on which the user `router` may do what it needs, and nobody else anything."""
    server = Valkey(tmp_path, "--user", "default", "off", "--user", "router", *RULES)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Valkey]]:
    """Three nodes, each with a third of the slots."""
    servers = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        servers.append(Valkey(folder, clustered=True))
    try:
        for server in servers:
            server.start()
        form_cluster(servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


async def admitted(limiters: Any, url: str, count: int = 150) -> int:
    log = Log(METER)
    await play(log, await limiters(url), [(0.0, 0)] * count)
    return log.admitted


def url_of(server: Valkey, user: str, password: str) -> str:
    return server.url.replace("redis://", f"redis://{user}:{password}@")


async def test_a_user_with_the_fewest_rights_will_do(guarded: Valkey, limiters: Any) -> None:
    assert await admitted(limiters, url_of(guarded, "router", "s3cret")) == 100


async def test_a_wrong_password_is_told_and_never_shown(guarded: Valkey, limiters: Any) -> None:
    with pytest.raises(SetupError) as caught:
        await limiters(url_of(guarded, "router", "Wr0ng"))
    assert "refuses the user or the password" in str(caught.value)
    assert "Wr0ng" not in str(caught.value)


async def test_a_missing_password_is_told(guarded: Valkey, limiters: Any) -> None:
    with pytest.raises(SetupError):
        await limiters(guarded.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "redis", "redis://127.0.0.1:port", ""])
def test_what_is_no_url_of_redis_is_refused(url: str) -> None:
    with pytest.raises(SetupError):
        Store(url)


def test_a_name_shows_no_credentials() -> None:
    store = Store("rediss://router:s3cret@cache.example:6380/0?ssl_ca_certs=ca.pem")
    assert store.name == "rediss://cache.example:6380/0"


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "3.2"])
def test_a_redis_that_is_too_old_is_told(version: str) -> None:
    with pytest.raises(SetupError, match=rf"is Redis {version} \(use Redis 6\.2 or later"):
        check_version({"redis_version": version}, "redis://cache")


@pytest.mark.parametrize("version", ["6.2.0", "7.4.1", "8.0"])
def test_a_redis_that_is_new_enough_will_do(version: str) -> None:
    check_version({"redis_version": version}, "redis://cache")


async def test_the_wheels_server_will_do(valkey: Valkey) -> None:
    store = Store(valkey.url)
    await store.check()
    await store.close()


async def test_a_cluster_will_do(cluster: list[Valkey], limiters: Any) -> None:
    url = cluster[0].url.replace("redis://", "redis+cluster://")
    (limiter,) = await limiters(url)
    logs = {f"t{number}": Log(METER) for number in range(12)}
    for _ in range(150):
        for tenant, log in logs.items():
            log.send(limiter, tenant)
    for log in logs.values():
        await log.complete()
    assert {log.admitted for log in logs.values()} == {100}


async def test_tenants_are_spread_over_a_cluster(cluster: list[Valkey], limiters: Any) -> None:
    await test_a_cluster_will_do(cluster, limiters)
    held = []
    for server in cluster:
        with server.client() as client:
            held.append(client.dbsize())
    assert (sum(held), min(held) > 0) == (12, True)


async def test_all_meters_of_a_tenant_are_asked_for_in_one_call_of_a_cluster(
    cluster: list[Valkey], limiters: Any
) -> None:
    (limiter,) = await limiters(cluster[0].url.replace("redis://", "redis+cluster://"))
    meters = (METER, METER._replace(name="orders"), METER._replace(name="orders.place", burst=7))
    told: list[Any] = []
    for _ in range(10):
        decision = limiter.take("acme", meters, time.monotonic())
        if decision is None:
            limiter.park("acme", meters, told.append)
        else:
            told.append(decision)
    log = Log(METER)
    await play(log, [limiter], [(0.0, 0)])
    assert sum(decision.allowed for decision in told) == 7
    assert {d.meter.name for d in told if not d.allowed} == {"orders.place"}


async def test_tls_will_do(valkey: Valkey, limiters: Any, tmp_path: Path) -> None:
    cert, secret = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(secret)),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, secret)
    async with Slow(valkey.port, 0.0).open(context) as way:
        assert await admitted(limiters, f"{way.url}?ssl_ca_certs={cert}") == 100


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    valkey: Valkey, limiters: Any, tmp_path: Path
) -> None:
    await test_tls_will_do(valkey, limiters, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with Slow(valkey.port, 0.0).open(context) as way:
        (limiter,) = await limiters(way.url)
        assert limiter.away


def test_all_meters_of_a_tenant_have_one_hash_tag() -> None:
    assert key("acme", "orders.place") == "tenantry:{acme}:rate:orders.place"


async def test_a_bucket_expires_when_it_would_be_empty(valkey: Valkey, limiters: Any) -> None:
    log = Log(Meter("default", 10.0, 100))
    await play(log, await limiters(valkey.url), [(0.0, 0)] * 100)
    with valkey.client() as client:
        assert 8_000 < client.pttl(key("acme", "default")) <= 10_001
