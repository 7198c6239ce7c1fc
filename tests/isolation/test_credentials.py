"""Who comes in: without credentials, with those of a tenant that is gone, with self-made ones."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tenantry import errors
from tenantry.operator import OperatorHome
from tenantry.operator.creds import parse, public_key_of, render
from tenantry.operator.keys import KeyPair, Kind
from tests.isolation.attacker import Wire, let_in, sign, tenants_key, user, user_jwt, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import PATIENCE, Mesh, Program, eventually

NOTE = b'{"text": "x"}'


def jwt_of(program: Program) -> str:
    return parse(program.creds.read_text()).jwt


async def asked(opened: Wire, tenant: str, action: str = "notes.echo") -> str:
    """The code that a raw request is answered with; "" for a result."""
    before = len(opened.heard)
    await opened.publish(f"tenant.{tenant}.{action}", NOTE, reply=f"_INBOX.{tenant}.x")

    async def came() -> bool:
        return len(opened.heard) > before

    await eventually(came)
    return opened.heard[-1].headers.get("Nats-Service-Error", "").partition(":")[0]


# --- no credentials ----------------------------------------------------------------------------


@cannot(22, Layer.SERVER)
@cannot(50, Layer.SERVER)
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"PUB tenant.acme.notes.remember 2\r\n{}\r\n",
        b"SUB > 1\r\n",
        b"CONNECT {}\r\nSUB > 1\r\n",
        b"CONNECT []\r\nSUB > 1\r\n",
        b'CONNECT {"jwt": 1}\r\n',
        b"CONNECT\r\n",
        b"RS+ A tenant.> 1\r\n",
        b"A+ EDGE\r\n",
        b'INFO {"server_id": "x"}\r\n',
    ],
    ids=ascii,
)
async def test_who_has_not_logged_in_says_nothing(mesh: Mesh, said: bytes) -> None:
    async with wire(mesh.url) as stranger:
        assert not await stranger.say(said)
        assert stranger.closed.is_set()
        assert stranger.heard == []


STRANGERS: dict[str, Callable[[Program], dict[str, Any]]] = {
    "nothing": lambda _: {},
    "a name": lambda acme: {"user": acme.id, "pass": ""},
    "a known name": lambda _: {"user": "router", "pass": "router"},
    "a token": lambda _: {"auth_token": "x"},
    "an empty jwt": lambda _: {"jwt": "", "sig": ""},
    "a public key": lambda acme: {"nkey": public_key_of(acme.creds.read_text())},
    "a jwt alone": lambda acme: {"jwt": jwt_of(acme)},
    "a jwt, no signature": lambda acme: {"jwt": jwt_of(acme), "sig": "AAAA"},
    "a jwt as a password": lambda acme: {"user": "x", "pass": jwt_of(acme)},
}


@cannot(22, Layer.SERVER)
@pytest.mark.parametrize("how", STRANGERS)
async def test_nobody_comes_in_without_credentials(mesh: Mesh, acme: Program, how: str) -> None:
    assert not await let_in(mesh.url, **STRANGERS[how](acme))


@cannot(22, Layer.SERVER)
async def test_a_signature_that_was_seen_does_not_let_in_again(mesh: Mesh, acme: Program) -> None:
    credentials = parse(acme.creds.read_text())
    async with wire(mesh.url) as seen:
        signature = seen.signed(credentials.key)
        assert not await let_in(mesh.url, jwt=credentials.jwt, sig=signature)


@cannot(22, Layer.SERVER)
async def test_anothers_jwt_is_nothing_without_its_seed(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    own = parse(globex.creds.read_text()).key
    assert not await let_in(mesh.url, render(jwt_of(acme), own))


@can(22)
@can(50)
async def test_with_its_credentials_a_program_comes_in(mesh: Mesh, acme: Program) -> None:
    assert await let_in(mesh.url, acme.creds.read_text())


# --- a tenant that is suspended or deleted -----------------------------------------------------


@asynccontextmanager
async def openings(mesh: Mesh, creds: str, tenant: str, change: str) -> AsyncIterator[list[Wire]]:
    """A connection from before the tenant's change and one from after it."""
    async with wire(mesh.url, creds) as before:
        await before.subscribe(f"_INBOX.{tenant}.>")
        await before.subscribe(f"_INBOX.{tenant}.>", "router")
        assert await asked(before, tenant) == ""
        await mesh.control(change, id=tenant)
        async with wire(mesh.url, creds) as after:
            await after.subscribe(f"_INBOX.{tenant}.>")
            yield [before, after]


@cannot(23, Layer.ROUTER)
@pytest.mark.parametrize("action", ["notes.echo", "notes.remember", "notes.texts", "notes.no"])
async def test_a_suspended_tenant_is_refused_on_open_and_new_connections(
    mesh: Mesh, acme: Program, action: str
) -> None:
    creds = acme.creds.read_text()
    async with openings(mesh, creds, acme.id, "suspend") as opened:
        await eventually(lambda: _is(opened[0], acme.id, "tenant_suspended"))
        for each in opened:
            assert await asked(each, acme.id, action) == "tenant_suspended"


@cannot(23, Layer.ROUTER)
async def test_nothing_of_a_suspended_tenant_is_stored(mesh: Mesh, acme: Program) -> None:
    async with openings(mesh, acme.creds.read_text(), acme.id, "suspend") as opened:
        await eventually(lambda: _is(opened[0], acme.id, "tenant_suspended"))
        for each in opened:
            await asked(each, acme.id, "notes.remember")
    await mesh.control("resume", id=acme.id)
    await eventually(lambda: _serves(acme))
    assert await acme.texts() == []


@cannot(23, Layer.SERVER)
async def test_a_deleted_tenants_connections_are_cut(mesh: Mesh, acme: Program) -> None:
    async with wire(mesh.url, acme.creds.read_text()) as opened:
        await mesh.control("delete", id=acme.id)
        await asyncio.wait_for(opened.closed.wait(), PATIENCE)
        assert opened.errors == ["User Authentication Revoked"]


@cannot(23, Layer.SERVER)
async def test_a_deleted_tenant_does_not_come_in_again(mesh: Mesh, acme: Program) -> None:
    await mesh.control("delete", id=acme.id)
    assert not await let_in(mesh.url, acme.creds.read_text())


@cannot(23, Layer.ROUTER, without=Layer.SERVER)
async def test_with_credentials_that_nobody_can_revoke_a_deleted_tenant_is_refused(
    mesh: Mesh, acme: Program
) -> None:
    """Signed past the control plane, so that the server knows of no revocation."""
    creds = mesh.home.tenant_creds(acme.id)
    async with openings(mesh, creds, acme.id, "delete") as opened:
        await eventually(lambda: _is(opened[0], acme.id, "tenant_unknown"))
        for each in opened:
            assert await asked(each, acme.id, "notes.remember") == "tenant_unknown"
            assert await asked(each, acme.id, "notes.echo") == "tenant_unknown"


@cannot(23, Layer.CONTROL)
async def test_a_deleted_tenant_gets_no_credentials_and_no_context(
    mesh: Mesh, acme: Program
) -> None:
    await mesh.control("delete", id=acme.id)
    with pytest.raises(errors.Conflict):
        await mesh.control("issue_credentials", id=acme.id, public_key=user().public_key)
    with pytest.raises(errors.Conflict):
        await mesh.control("issue_context", id=acme.id, principal="operator")
    with pytest.raises(errors.Conflict):
        await mesh.control("resume", id=acme.id)


@can(23)
async def test_a_resumed_tenant_is_served_on_the_same_connections(
    mesh: Mesh, acme: Program
) -> None:
    async with openings(mesh, acme.creds.read_text(), acme.id, "suspend") as opened:
        await eventually(lambda: _is(opened[0], acme.id, "tenant_suspended"))
        await mesh.control("resume", id=acme.id)
        await eventually(lambda: _is(opened[0], acme.id, ""))
        await eventually(lambda: _is(opened[1], acme.id, ""))


@can(23)
@pytest.mark.parametrize("change", ["suspend", "delete"])
async def test_the_neighbours_notice_nothing(
    mesh: Mesh, acme: Program, globex: Program, change: str
) -> None:
    async with wire(mesh.url, globex.creds.read_text()) as opened:
        await opened.subscribe(f"_INBOX.{globex.id}.>")
        await mesh.control(change, id=acme.id)
        assert await asked(opened, globex.id) == ""
        assert await let_in(mesh.url, globex.creds.read_text())


# --- JWTs that nobody has issued ---------------------------------------------------------------


def elsewhere(folder: Path) -> OperatorHome:
    """An operator of another mesh, or of this one before it was made anew."""
    OperatorHome.create(folder / "elsewhere")
    return OperatorHome.load(folder / "elsewhere")


def altered(jwt: str, **nats: Any) -> str:
    """The same signature under another text."""
    head, body, signature = jwt.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["nats"] |= nats
    text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{head}.{text}.{signature}"


class Forger:
    """All that a program of globex has, and a name to forge for."""

    def __init__(self, mesh: Mesh, acme: Program, globex: Program, folder: Path) -> None:
        self.home, self.victim, self.folder = mesh.home, acme, folder
        self.own = parse(globex.creds.read_text())
        self.tags = [f"tenant:{acme.id}"]

    def jwt(self, signer: KeyPair, key: KeyPair | None = None, **more: Any) -> str:
        key = key or self.own.key
        return render(user_jwt(self.home, key, signer, more.pop("tags", self.tags), **more), key)

    def role_key(self, role: str) -> KeyPair:
        return KeyPair.from_seed((self.home.path / "keys" / f"mesh-{role}.nk").read_text())


NOT_SIGNED: dict[str, Callable[[Forger], str]] = {
    "with its own key": lambda f: f.jwt(f.own.key),
    "with a new account key": lambda f: f.jwt(KeyPair.generate(Kind.ACCOUNT)),
    "with a new operator key": lambda f: f.jwt(KeyPair.generate(Kind.OPERATOR)),
    "with the key of another mesh": lambda f: f.jwt(tenants_key(elsewhere(f.folder))),
    "by another mesh": lambda f: elsewhere(f.folder).tenant_creds(f.victim.id),
    "with a key that no scope has": lambda f: f.jwt(tenants_key(f.home).derive("plan:none")),
    "with a role's key": lambda f: f.jwt(f.role_key("service")),
    "by the asker's own account": lambda f: f.jwt(f.own.key, issuer_account=f.own.key.public_key),
    "another tenant in place of the own": lambda f: render(
        altered(f.own.jwt, tags=f.tags), f.own.key
    ),
    "one tenant more": lambda f: render(
        altered(f.own.jwt, tags=[*f.own.user.tags, *f.tags]), f.own.key
    ),
    "permissions more": lambda f: render(altered(f.own.jwt, pub={"allow": [">"]}), f.own.key),
    "no signature": lambda f: render(f.own.jwt.rpartition(".")[0] + ".AAAA", f.own.key),
    "its own claims, another's signature": lambda f: render(
        f"{f.jwt(f.own.key).split()[4].rpartition('.')[0]}.{jwt_of(f.victim).split('.')[2]}",
        f.own.key,
    ),
    "as no algorithm": lambda f: f.jwt(f.own.key, head={"typ": "JWT", "alg": "none"}),
    "as another algorithm": lambda f: f.jwt(f.own.key, head={"typ": "JWT", "alg": "HS256"}),
}

SIGNED: dict[str, Callable[[Forger], str]] = {
    "permissions": lambda f: f.jwt(tenants_key(f.home), pub={"allow": [">"]}),
    "permissions to subscribe": lambda f: f.jwt(tenants_key(f.home), sub={"allow": [">"]}),
    "permissions to answer": lambda f: f.jwt(tenants_key(f.home), resp={"max": -1, "ttl": 0}),
    "limits": lambda f: f.jwt(tenants_key(f.home), subs=-1, data=-1, payload=-1),
    "a bearer token": lambda f: f.jwt(tenants_key(f.home), bearer_token=True),
    "kinds of connections": lambda f: f.jwt(
        tenants_key(f.home), allowed_connection_types=["LEAFNODE"]
    ),
    "the account of the mesh": lambda f: f.jwt(
        tenants_key(f.home), issuer_account=f.home.mesh_public_key
    ),
    "the system account": lambda f: f.jwt(
        tenants_key(f.home), issuer_account=f.home.sys_public_key
    ),
    "another type": lambda f: f.jwt(tenants_key(f.home), type="account"),
    "an end that is over": lambda f: f.jwt(tenants_key(f.home), more={"exp": 1}),
    "a beginning that is to come": lambda f: f.jwt(tenants_key(f.home), more={"nbf": 2**33}),
    "no algorithm": lambda f: f.jwt(tenants_key(f.home), head={"typ": "JWT", "alg": "none"}),
    "another role's account": lambda f: f.jwt(
        f.role_key("control"), issuer_account=f.home.edge_public_key
    ),
}


@pytest.fixture
def forger(mesh: Mesh, acme: Program, globex: Program, tmp_path: Path) -> Forger:
    return Forger(mesh, acme, globex, tmp_path)


@cannot(24, Layer.SERVER)
@pytest.mark.parametrize("how", NOT_SIGNED)
async def test_a_self_made_jwt_does_not_come_in(mesh: Mesh, forger: Forger, how: str) -> None:
    assert not await let_in(mesh.url, NOT_SIGNED[how](forger))


@cannot(24, Layer.SERVER)
@pytest.mark.parametrize("what", SIGNED)
async def test_even_the_tenants_key_can_not_sign(mesh: Mesh, forger: Forger, what: str) -> None:
    """A scoped key: its template says all, and who says more of himself is refused."""
    assert not await let_in(mesh.url, SIGNED[what](forger))


@cannot(24, Layer.SERVER)
async def test_an_account_jwt_is_no_login(mesh: Mesh, forger: Forger) -> None:
    jwt = (mesh.home.path / "accounts" / "edge.jwt").read_text().strip()
    assert not await let_in(mesh.url, render(jwt, forger.own.key))


@cannot(24, Layer.SERVER)
async def test_a_tenants_context_is_no_login(mesh: Mesh, acme: Program) -> None:
    token = mesh.minter().mint(acme.id, "business", "edge")
    assert not await let_in(mesh.url, jwt=token, sig="AAAA")


@cannot(24, Layer.CONTROL)
async def test_a_self_made_account_is_not_pushed_by_us(mesh: Mesh) -> None:
    """nats-server itself would take it: the system account's credentials must be guarded."""
    account = KeyPair.generate(Kind.ACCOUNT)
    claims = {"sub": mesh.home.edge_public_key, "iss": account.public_key, "iat": 1}
    jwt = sign(claims | {"nats": {"type": "account", "version": 2}}, account)
    with pytest.raises(errors.SetupError, match="not signed by our operator"):
        mesh.home.validate_edge(jwt)


@cannot(24, Layer.SERVER)
async def test_signed_without_a_tenant_it_may_do_nothing(mesh: Mesh, forger: Forger) -> None:
    async with wire(mesh.url, forger.jwt(tenants_key(mesh.home), tags=[])) as nobody:
        for subject in (f"tenant.{forger.victim.id}.notes.echo", "tenant..notes.echo", "tenant"):
            assert not await nobody.publish(subject)
        for subject in (f"_INBOX.{forger.victim.id}.>", "_INBOX..>", "_INBOX.>", "_INBOX.x"):
            assert not await nobody.subscribe(subject)


@can(24)
async def test_what_the_mesh_has_signed_comes_in(mesh: Mesh, forger: Forger) -> None:
    """The forgeries above rest on this one: without their one fault they would come in."""
    assert await let_in(mesh.url, forger.jwt(tenants_key(mesh.home)))


# --- one key, two tenants ----------------------------------------------------------------------


@cannot(49, Layer.CONTROL)
async def test_another_tenants_key_gets_no_credentials(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    """With globex's credentials acme's would be revoked: the server revokes keys."""
    with pytest.raises(errors.Conflict) as caught:
        await mesh.control(
            "issue_credentials", id=globex.id, public_key=public_key_of(acme.creds.read_text())
        )
    assert acme.id not in str(caught.value)
    await mesh.control("revoke_credentials", id=globex.id)
    assert await let_in(mesh.url, acme.creds.read_text())


@cannot(49, Layer.CONTROL)
@pytest.mark.parametrize("state", ["active", "deleted"])
async def test_no_tenant_begins_with_another_tenants_key(
    mesh: Mesh, acme: Program, state: str
) -> None:
    if state == "deleted":
        await mesh.control("delete", id=acme.id)
    key = public_key_of(acme.creds.read_text())
    with pytest.raises(errors.Conflict):
        await mesh.control("create", id=f"{acme.id}-too", public_key=key)
    with pytest.raises(errors.NotFound):
        await mesh.control("show", id=f"{acme.id}-too")


@cannot(49, Layer.CONTROL)
async def test_a_key_of_another_tenant_cannot_be_revoked(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    key = public_key_of(acme.creds.read_text())
    with pytest.raises(errors.NotFound):
        await mesh.control("revoke_credentials", id=globex.id, public_key=key)
    assert (await acme.ask("notes.echo", {"text": "x"})).code == ""


@can(49)
async def test_a_key_of_its_own_gets_credentials(mesh: Mesh, acme: Program) -> None:
    key = user()
    answer = await mesh.control("issue_credentials", id=acme.id, public_key=key.public_key)
    assert await let_in(mesh.url, render(answer["jwt"], key))


# --- a second login ----------------------------------------------------------------------------


@cannot(51, Layer.SERVER)
@pytest.mark.parametrize("second", ["", "forged"])
async def test_a_second_login_that_is_refused_ends_the_connection_or_changes_nothing(
    mesh: Mesh, acme: Program, globex: Program, hostile: Wire, forger: Forger, second: str
) -> None:
    await hostile.login(forger.jwt(forger.own.key) if second else "")
    assert not await hostile.publish(f"tenant.{acme.id}.notes.echo", NOTE)
    assert not await hostile.subscribe(f"_INBOX.{acme.id}.>")


@cannot(51, Layer.SERVER)
async def test_a_second_login_leaves_nothing_of_the_first(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    """Else a connection would hear a tenant whose credentials were revoked since."""
    async with wire(mesh.url, acme.creds.read_text()) as changed:
        await changed.subscribe(f"_INBOX.{acme.id}.>")
        await changed.login(globex.creds.read_text())
        assert not await changed.publish(f"tenant.{acme.id}.notes.echo", NOTE)
        async with wire(mesh.url, acme.creds.read_text()) as other:
            await other.subscribe(f"_INBOX.{acme.id}.>")
            assert await asked(other, acme.id) == ""
        await changed.say(b"")
        assert changed.heard == []


@cannot(51, Layer.SERVER)
@pytest.mark.parametrize("revoked", ["first", "second"])
async def test_after_a_second_login_both_can_still_be_revoked(
    mesh: Mesh, acme: Program, globex: Program, revoked: str
) -> None:
    async with wire(mesh.url, acme.creds.read_text()) as changed:
        await changed.login(globex.creds.read_text())
        tenant = {"first": acme, "second": globex}[revoked]
        await mesh.control("revoke_credentials", id=tenant.id)
        await asyncio.wait_for(changed.closed.wait(), PATIENCE)


@can(51)
async def test_after_a_second_login_it_is_it_is_who_it_says(
    mesh: Mesh, acme: Program, globex: Program
) -> None:
    async with wire(mesh.url, acme.creds.read_text()) as changed:
        await changed.login(globex.creds.read_text())
        await changed.subscribe(f"_INBOX.{globex.id}.>")
        assert await asked(changed, globex.id) == ""


async def _is(opened: Wire, tenant: str, code: str) -> bool:
    return await asked(opened, tenant) == code


async def _serves(program: Program) -> bool:
    return (await program.ask("notes.echo", {"text": "x"})).code == ""
