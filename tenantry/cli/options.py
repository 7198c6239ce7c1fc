"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from tenantry.cli import output

CONNECTION = Group("Connection", sort_key=100)

Output = Annotated[
    output.Format, Parameter(name=("--output", "-o"), help="how to print the answer")
]

State = Annotated[
    Path,
    Parameter(
        name="--state",
        env_var="TENANTRY_STATE",
        group=CONNECTION,
        help="state folder of a mesh on this machine, made by `tenantry up`",
    ),
]

Redis = Annotated[
    str | None,
    Parameter(
        name="--redis",
        env_var="TENANTRY_REDIS",
        group=CONNECTION,
        help="URL of the Redis or Valkey where routers share what they count; with a password "
        "better in the environment, which `ps` does not show",
    ),
]

TenantId = Annotated[str, Parameter(help="the tenant's id, such as acme")]

CredsFile = Annotated[
    Path | None, Parameter(name="--creds-file", help="where to write the credentials")
]

Last = Annotated[int | None, Parameter(validator=Number(gte=1), help="only the last so many")]

Follow = Annotated[
    bool, Parameter(name=("--follow", "-f"), negative="", help="go on with those to come")
]
