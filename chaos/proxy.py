"""A TCP proxy between one worker and nats-server, to pause, delay or cut its network."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

_CHUNK = 65_536


class Proxy:
    """Listens on a free port of its own and forwards to loopback, `latency` seconds late.

    With several ports it takes the first that answers, beginning with the one after the last taken.
    """

    def __init__(self, *ports: int, latency: float = 0.0) -> None:
        self._targets = deque(ports)
        self._latency = latency
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Proxy:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("the proxy does not run")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def pause(self) -> None:
        """Let nothing through, in neither direction; connections stay."""
        self._flows.clear()

    def cut(self) -> None:
        """Break all connections and take no new ones."""
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Be a good network again; what was held back by a pause goes on its way."""
        self._is_cut = False
        self._flows.set()

    async def close(self) -> None:
        """Stop."""
        self.cut()
        self._flows.set()
        if self._server is not None:
            self._server.close()
        if self._tasks:  # cut off, they end: asyncio complains of those that are cancelled
            await asyncio.wait(self._tasks, timeout=2.0)
        for task in list(self._tasks):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._join(reader, writer)
        except OSError:
            pass  # nats-server is away: the worker sees its connection end
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        up_reader, up_writer = await self._dial()
        self._writers.add(up_writer)
        ways = {
            asyncio.create_task(self._pump(reader, up_writer)),
            asyncio.create_task(self._pump(up_reader, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._writers.discard(up_writer)
            up_writer.close()  # what was written before still goes out

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a server; raises what the last of them raises."""
        for _ in range(len(self._targets) - 1):
            self._targets.rotate(-1)
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._targets[-1])
        self._targets.rotate(-1)
        return await asyncio.open_connection("127.0.0.1", self._targets[-1])

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await asyncio.sleep(self._latency)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
