"""The configuration in infra/redis, started as its README says (but for TLS and the port)."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.local import server, valkey
from tests.mesh import eventually

INFRA = Path(__file__).parents[3] / "infra" / "redis"
PASSWORD = "of-the-test"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a server with these files listens; the wheel's own has no TLS."""
    folder = tmp_path_factory.mktemp("redis")
    (folder / "data").mkdir()
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    (folder / "users.acl").write_text(
        (INFRA / "users.acl").read_text().replace("#" + "0" * 64, f"#{digest}")
    )
    lines = (INFRA / "valkey.conf").read_text().splitlines()
    plain = [line for line in lines if not line.startswith(("tls-", "port ", "bind "))]
    (folder / "valkey.conf").write_text("\n".join(plain))
    free = server.free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(valkey.find_valkey_server()), "./valkey.conf"),
                *("--port", str(free), "--bind", "127.0.0.1"),
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    yield free
    process.terminate()
    process.wait(10)


async def say(port: int, *lines: str) -> list[str]:
    """The first line of each answer to inline commands."""

    async def listens() -> bool:
        return await valkey.answers(f"redis://tenantry:{PASSWORD}@127.0.0.1:{port}")

    await eventually(listens)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        answers = []
        for line in lines:
            writer.write(f"{line}\r\n".encode())
            answers.append((await reader.readline()).decode().strip())
        return answers
    finally:
        writer.close()


LOGIN = f"AUTH tenantry {PASSWORD}"


async def test_nobody_is_let_in_without_a_password(port: int) -> None:
    (answer,) = await say(port, "GET tenantry:a")
    assert answer.startswith("-NOAUTH")


@pytest.mark.parametrize(
    "command",
    [
        *("SET tenantry:a 1 PX 100", "TIME", "HINCRBY tenantry:h f 1"),
        "EVAL \"redis.call('SET', KEYS[1], redis.call('TIME')[1]) return 1\" 1 tenantry:b",
    ],
)
async def test_a_router_does_what_it_has_to(port: int, command: str) -> None:
    assert not (await say(port, LOGIN, command))[1].startswith("-")


@pytest.mark.parametrize(
    "command",
    [
        *("SET other 1", "FLUSHALL", "KEYS *", "CONFIG GET dir", "ACL LIST", "SHUTDOWN"),
        *("SCRIPT FLUSH", "MONITOR", "SUBSCRIBE tenantry:a"),
        "EVAL \"return redis.call('GET', 'other')\" 1 tenantry:b",
    ],
)
async def test_a_router_does_nothing_else(port: int, command: str) -> None:
    answer = (await say(port, LOGIN, command))[1]
    assert answer.startswith(("-NOPERM", "-ERR ACL failure", "-ERR Script attempted"))
