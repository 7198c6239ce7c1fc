"""How a command reaches the mesh: options, environment, the state folder, the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenantry.bus import Bus
from tenantry.cli import options
from tenantry.errors import ConnectionFailed, SetupError
from tenantry.local import state as state_folder
from tenantry.local import valkey
from tenantry.local.state import StateFolder
from tenantry.operator import OperatorHome
from tenantry.operator import creds as creds_files

DEFAULT_URL = "nats://127.0.0.1:4222"


@Parameter(name="*", group=options.CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Options go before the environment, and that before the state folder."""

    url: Annotated[
        str | None,
        Parameter(
            env_var="TENANTRY_URL",
            help="where NATS is; by default where `tenantry up` runs the mesh of the state "
            f"folder, and without one {DEFAULT_URL}",
        ),
    ] = None
    creds: Annotated[
        Path | None, Parameter(env_var="TENANTRY_CREDS", help="credentials file to connect with")
    ] = None
    home: Annotated[
        Path | None,
        Parameter(
            env_var="TENANTRY_HOME",
            help="the operator's directory; by default `operator` in the state folder",
        ),
    ] = None
    state: options.State = state_folder.DEFAULT

    @property
    def folder(self) -> StateFolder:
        """The state folder, which need not exist."""
        return StateFolder(self.state)

    def server(self) -> str:
        """Where NATS is.

        Raises :class:`ConnectionFailed` where the state folder is to tell, and its mesh is down:
        what listens on the default port then may be another mesh.
        """
        if self.url:
            return self.url
        running = self.folder.running()
        if running is not None:
            return running.url
        if self.home is None and (self.folder.exists or self.state != state_folder.DEFAULT):
            raise ConnectionFailed(
                f"the mesh of {self.folder.path} is not running", hint=self._how_to_start()
            )
        return DEFAULT_URL

    def redis(self) -> str | None:
        """The Valkey that `tenantry up` has started for this mesh, if it runs."""
        if self.url or not self.folder.in_use():
            return None
        return valkey.url_of(self.folder.path)

    def operator_home(self) -> Path:
        """The operator's directory, which need not exist."""
        return self.home or self.folder.operator

    def role_creds(self, role: str) -> Path:
        """The credentials of a mesh role. Raises :class:`SetupError` where there are none."""
        path = self.creds or self.operator_home() / "creds" / f"{role}.creds"
        if not path.exists():
            raise SetupError(
                f"no credentials of the role {role}: {path} is missing",
                hint="start a mesh here with `tenantry up`, or give --creds FILE or --home DIR",
            )
        tenant = _holder(path)
        if tenant is not None:
            raise SetupError(
                f"{path} holds credentials of the tenant {tenant}, not of the role {role}",
                hint="unset TENANTRY_CREDS or give --creds FILE",
            )
        return path

    def service_creds(self, services: Sequence[str]) -> Path:
        """Credentials for these services; out of the operator's directory, made where there are
        none. Raises :class:`SetupError`."""
        if self.creds is None and (self.operator_home() / "home.json").exists():
            return OperatorHome.load(self.operator_home()).service_creds(services)
        path = self.role_creds("service")
        creds_files.check_covers(path, services)
        return path

    def tenant_creds(self, tenant: str) -> Path:
        """The credentials of a tenant. Raises :class:`SetupError` where there are none."""
        if self.creds is not None:
            found = self.creds
        else:
            places = [Path(f"{tenant}.creds"), self.folder.path.parent / f"{tenant}.creds"]
            found = next((place for place in places if place.exists()), places[0])
        if not found.exists():
            raise SetupError(
                f"no credentials of the tenant {tenant}: {found} is missing",
                hint=f"give --creds FILE, or make some with `tenantry tenants create {tenant}` or "
                f"`tenantry tenants credentials issue {tenant}`",
            )
        holder = _holder(found)
        if holder != tenant:
            whose = f"the tenant {holder}" if holder else "the mesh"
            raise SetupError(
                f"{found} holds credentials of {whose}, not of the tenant {tenant}",
                hint=f"give --creds {tenant}.creds",
            )
        return found

    def explain(self, error: ConnectionFailed) -> ConnectionFailed:
        """The same error with the hint that fits this machine."""
        if self.url or self.folder.in_use():
            return error
        return ConnectionFailed(error.message, hint=self._how_to_start())

    def _how_to_start(self) -> str:
        option = "" if self.state == state_folder.DEFAULT else f" --state {self.state}"
        return f"`tenantry up -d{option}` starts a mesh here; --url names another"

    async def connect(self, role: str) -> Bus:
        """A connection in a role of the mesh."""
        creds = self.role_creds(role)
        try:
            return await Bus.connect(self.server(), creds=creds, name="tenantry-cli", patience=5.0)
        except ConnectionFailed as error:
            raise self.explain(error) from None


DEFAULT = Connection()


def _holder(path: Path) -> str | None:
    """Whose credentials these are: a tenant's, or None for the mesh's."""
    text = creds_files.load(path)
    try:
        return creds_files.tenant_of(text)
    except SetupError as error:
        raise SetupError(f"{path}: {error.message}", hint=error.hint) from None
