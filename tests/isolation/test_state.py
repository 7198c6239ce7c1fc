"""What is kept of a tenant: no name, key or subject of one is, or begins, another's."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import subjects
from tenantry.bus import Bus
from tenantry.context.state import keys_of, prefix
from tenantry_workers.router.limits.store import key
from tests.isolation.cases import Layer, can, cannot
from tests.isolation.hostile import hostile
from tests.mesh import Mesh, Program

NAME = "vault"


@pytest.fixture(scope="module", autouse=True)
def vault(mesh: Mesh) -> None:
    service, _ = hostile(NAME)
    mesh.start(mesh.worker(service))


async def write(program: Program, name: str, text: str) -> str:
    return (await program.ask(f"{NAME}.write", {"how": name, "text": text})).code


# names of values


@cannot(66, Layer.STORE)
@pytest.mark.parametrize(
    "name",
    ["{other}.vault.secret", "state.{other}.vault.secret", "{other}", "vault.secret", "0.secret"],
)
async def test_the_name_of_a_value_stays_under_its_tenant(
    mesh: Mesh, acme: Program, globex: Program, control: Bus, name: str
) -> None:
    await mesh.ready(acme, f"{NAME}.write")
    await write(globex, "secret", "of globex")
    assert await write(acme, name.format(other=globex.id), "of acme") == ""
    assert await globex.texts(NAME) == ["of globex"]
    assert await keys_of(control, f"{globex.id}.") == [f"{globex.id}.{NAME}.secret"]
    (own,) = await keys_of(control, f"{acme.id}.")
    assert own == f"{acme.id}.{NAME}.{name.format(other=globex.id)}"


@cannot(66, Layer.GRAMMAR)
@pytest.mark.parametrize(
    "name", ["*", ">", "../{other}/secret", "a.>", "a.*", "", ".", "/1.secret", "a\n", "ä"]
)
async def test_what_could_reach_further_is_no_name(
    mesh: Mesh, acme: Program, globex: Program, control: Bus, name: str
) -> None:
    await mesh.ready(acme, f"{NAME}.write")
    assert await write(acme, name.format(other=globex.id), "of acme")
    assert await keys_of(control, f"{acme.id}.") == []
    assert await keys_of(control, f"{globex.id}.") == []


@cannot(66, Layer.STORE, without=Layer.GRAMMAR)
@pytest.mark.parametrize("name", ["*", ">", "..", "../{other}/secret", "a.>", "/1.secret"])
async def test_a_name_of_any_kind_stays_under_its_tenant(
    mesh: Mesh,
    acme: Program,
    globex: Program,
    control: Bus,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    await mesh.ready(acme, f"{NAME}.write")
    await write(globex, "secret", "of globex")
    monkeypatch.setattr("tenantry.context.state._NAME", re.compile(".*", re.DOTALL))
    await write(acme, name.format(other=globex.id), "of acme")
    assert await keys_of(control, f"{globex.id}.") == [f"{globex.id}.{NAME}.secret"]
    assert await globex.texts(NAME) == ["of globex"]


@can(66)
async def test_each_tenant_has_a_value_of_the_same_name(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    await mesh.ready(acme, f"{NAME}.write")
    for program in (acme, globex):
        assert await write(program, "secret", program.id) == ""
    for program in (acme, globex):
        assert await program.texts(NAME) == [program.id]


# ids that begin alike


@cannot(67, Layer.STORE)
async def test_a_tenant_lists_nothing_of_one_whose_id_begins_with_its_own(mesh: Mesh) -> None:
    async with mesh.program("vaults") as short, mesh.program("vaults-two") as long:
        await mesh.ready(short, f"{NAME}.write")
        await write(long, "secret", "of the long one")
        assert await short.texts(NAME) == []
        await write(short, "secret", "of the short one")
        assert await short.texts(NAME) == ["of the short one"]
        assert await long.texts(NAME) == ["of the long one"]


def keys(tenant: str, name: str) -> list[str]:
    """Every kind of key and subject under which something of a tenant is kept."""
    return [
        f"$KV.state.{prefix(tenant, name)}",
        f"$KV.state.{prefix(tenant, name, 1)}",
        subjects.journal(subjects.Address(tenant, name, "x")),
        subjects.request(subjects.Address(tenant, name, "x")),
        subjects.stored_of(tenant, f"{name}.x"),
        subjects.dead(tenant, name, 1),
        subjects.schedule(tenant, name, "0" * 32),
        subjects.timer(tenant, name, "0" * 32),
        subjects.due(tenant, name, "0" * 32),
        f"{subjects.inbox(tenant)}.",
        key(tenant, "default"),
        key(tenant, name),
        key(tenant, f"{name}.x"),
    ]


LABEL = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
PAIR = st.one_of(
    st.tuples(LABEL, LABEL),
    st.tuples(LABEL, LABEL).map(lambda pair: (pair[0], pair[0] + pair[1])),
    st.tuples(LABEL, LABEL).map(lambda pair: (pair[0], f"{pair[0]}-{pair[1]}")),
).filter(lambda pair: pair[0] != pair[1])
SERVICE = st.from_regex(r"[a-z](?:[a-z0-9_]{0,5}[a-z0-9])?", fullmatch=True)


@cannot(67, Layer.STORE)
@given(PAIR, SERVICE, SERVICE)
def test_no_key_of_one_tenant_is_or_begins_one_of_another(
    pair: tuple[str, str], one: str, two: str
) -> None:
    for own, other in itertools.product(keys(pair[0], one), keys(pair[1], two)):
        assert not own.startswith(other)
        assert not other.startswith(own)


@can(67)
@given(LABEL, SERVICE, SERVICE)
def test_keys_of_one_tenant_are_apart_by_service(tenant: str, one: str, two: str) -> None:
    assert (prefix(tenant, one) == prefix(tenant, two)) == (one == two)
    assert len(set(keys(tenant, one))) == len(keys(tenant, one))
