"""Ids that would name more, or something else, than one tenant."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from tenantry import errors, subjects
from tenantry.bus import Bus
from tenantry.bus import jetstream as js
from tenantry.errors import BadMessage, NotFound, SetupError
from tenantry.operator.creds import render
from tenantry.wire import problem
from tests.isolation.attacker import tenants_key, user, user_jwt, wire
from tests.isolation.cases import Layer, can, cannot
from tests.mesh import Mesh, Program

DOTS = ["a.b", ".a", "a.", "acme.orders", "tenant.acme"]
STARS = ["*", "a*", "*a", "a-*"]
ARROWS = [">", "a>", "a->", "acme.>"]
BLANKS = ["a b", "a\tb", "a\r\nPUB x 0\r\n", "a\n", "\na", "a\r", "a\0", "\0", " a", "a "]
RESERVED = ["$SYS", "$JS", "$KV", "$SRV", "_INBOX", "_MESH", "_R_", "_nobody", "_0"]
LOOKALIKES = [
    *["\u0430cme", "\uff41cme", "acme\u0301", "acme\u200b", "acm\u00e9", "\u0661", "acme\ufeff"],
    *["ac\u00adme", "\u212aelvin", "acme\u3002b", "acme\uff0eb", "\u202eemca", "\ud800"],
]
CASES = ["Acme", "ACME", "acmE", "tenant:acme"]
LONG = ["a" * 64, "a" * 10_000, "a-" * 40 + "a"]
BAD = [
    *((1, text) for text in DOTS),
    *((2, text) for text in STARS),
    *((3, text) for text in ARROWS),
    *((4, text) for text in BLANKS),
    (5, ""),
    *((6, text) for text in RESERVED),
    *((7, text) for text in LOOKALIKES),
    *((8, text) for text in CASES),
    *((10, text) for text in LONG),
]
ANY_BAD = pytest.mark.parametrize("bad", [text for _, text in BAD], ids=ascii)
SENDABLE = [text for _, text in BAD if "\ud800" not in text]

_numbers = itertools.count(1)


async def keys(control: Bus, stream: str) -> list[str]:
    """The keys of a KV bucket."""
    found = await js.get_batch(control, stream, subject=f"$KV.{stream[3:]}.>", batch=9_999)
    return [message.subject.split(".", 2)[2] for message in found]


def every_id(layer: Layer, without: Layer | None = None):  # type: ignore[no-untyped-def]
    """The same test is a try of each case of an id."""

    def mark(test):  # type: ignore[no-untyped-def]
        for case in (1, 2, 3, 4, 5, 6, 7, 8, 10):
            test = cannot(case, layer, without=without)(test)
        return test

    return mark


async def create(control: Bus, name: str) -> errors.Rejection | None:
    """Ask the control plane for a tenant; why it refuses."""
    body = msgspec.json.encode({"id": name, "plan": "business"})
    answer = await control.call("platform.tenants.create", body)
    return problem.load(answer.headers, answer.data)


@every_id(Layer.CONTROL)
async def test_the_control_plane_makes_no_such_tenant(control: Bus) -> None:
    for bad in SENDABLE:
        refusal = await create(control, bad)
        assert isinstance(refusal, BadMessage), bad
        assert refusal.path == "$.id"


@every_id(Layer.CONTROL, without=Layer.GRAMMAR)
async def test_the_form_of_its_message_alone_stops_it(
    control: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "is_tenant", lambda _: True)
    for bad in SENDABLE:
        assert await create(control, bad) is not None, bad
    monkeypatch.undo()
    assert not set(SENDABLE) & set(await keys(control, "KV_tenants"))


@every_id(Layer.GRAMMAR, without=Layer.CONTROL)
@ANY_BAD
def test_no_credentials_are_signed_for_it(mesh: Mesh, bad: str) -> None:
    with pytest.raises(SetupError, match="not a tenant id"):
        mesh.home.tenant_jwt(user().public_key, bad)


@every_id(Layer.GRAMMAR)
@ANY_BAD
def test_no_subject_is_made_with_it(bad: str) -> None:
    with pytest.raises(errors.BadSubject):
        subjects.address(bad, "notes.echo")


@pytest.mark.parametrize("action", ["show", "suspend", "resume", "delete", "issue_context"])
@pytest.mark.parametrize("bad", ["*", ">", "a.b", "", "a\n", "$SYS"], ids=ascii)
@cannot(2, Layer.CONTROL)
@cannot(3, Layer.CONTROL)
async def test_nothing_is_asked_about_several_tenants_at_once(
    mesh: Mesh, action: str, bad: str
) -> None:
    more = {"principal": "x"} if action == "issue_context" else {}
    with pytest.raises((NotFound, BadMessage)):
        await mesh.control(action, id=bad, **more)


# Whoever has the tenants' signing key can sign any tag. What is left is said here as it is: the
# server takes a pattern of one token for what it says, so the key must be guarded and what it
# signs be checked; everything else opens nothing.


@pytest.mark.parametrize(
    "tags",
    [
        *[("tenant:>",), ("tenant:",), ("tenant: acme",), ("tenant:acme ",), ("tenant:acme.>",)],
        *[("tenant:acme globex",), ("Tenant:acme",), ("TENANT:*",), ("tenant",), ("other:acme",)],
        *[("tenant:acme:b",), ("tenant:acme\n",), ("tenant:\u0430cme",), ("tenant:Acme",), ()],
    ],
    ids=ascii,
)
@cannot(3, Layer.SERVER, without=Layer.GRAMMAR)
@cannot(4, Layer.SERVER, without=Layer.GRAMMAR)
@cannot(5, Layer.SERVER, without=Layer.GRAMMAR)
@cannot(7, Layer.SERVER, without=Layer.GRAMMAR)
@cannot(8, Layer.SERVER, without=Layer.GRAMMAR)
async def test_a_signed_tag_that_is_no_id_opens_no_tenant(
    mesh: Mesh, tags: tuple[str, ...]
) -> None:
    program = user()
    creds = render(user_jwt(mesh.home, program, tenants_key(mesh.home), tags), program)
    async with wire(mesh.url, creds) as opened:
        assert not await opened.publish("tenant.acme.notes.echo")
        assert not await opened.subscribe("_INBOX.acme.>")
        assert not await opened.subscribe("_INBOX.*.>")
        assert not await opened.subscribe(">")


@pytest.mark.parametrize("tag", ["tenant:acme", "tenant:0"])
@can(3)
@can(4)
@can(5)
async def test_a_signed_tag_that_is_an_id_opens_that_tenant(mesh: Mesh, tag: str) -> None:
    program, name = user(), tag.removeprefix("tenant:")
    creds = render(user_jwt(mesh.home, program, tenants_key(mesh.home), (tag,)), program)
    async with wire(mesh.url, creds) as opened:
        assert await opened.publish(f"tenant.{name}.notes.echo")
        assert await opened.subscribe(f"_INBOX.{name}.>")


@cannot(8, Layer.ROUTER, without=Layer.GRAMMAR)
@pytest.mark.parametrize("spelt", ["upper", "title"])
async def test_an_id_in_capitals_is_another_tenant_to_the_router(
    mesh: Mesh, acme: Program, spelt: str
) -> None:
    """Even with credentials that only the signing key could make."""
    name, program = getattr(acme.id, spelt)(), user()
    tag = (f"tenant:{name}",)
    creds = render(user_jwt(mesh.home, program, tenants_key(mesh.home), tag), program)
    async with wire(mesh.url, creds) as opened:
        await opened.subscribe(f"_INBOX.{name}.>")
        await opened.publish(f"tenant.{name}.notes.remember", b'{"text":"x"}', reply="_INBOX.x.y")
        await opened.publish(f"tenant.{acme.id}.notes.remember", b'{"text":"x"}')
    assert await acme.texts() == []


@can(1)
@can(2)
@can(6)
@can(7)
@can(8)
@can(10)
@pytest.mark.parametrize("shape", ["x{}", "0{}", "a-{}", "xn--a-{}", "inbox{}", "sys-{}"])
async def test_every_dns_label_is_a_tenant(mesh: Mesh, shape: str) -> None:
    name = shape.format(next(_numbers)) + "z"
    async with mesh.program(name) as program:
        assert (await program.ask("notes.seen")).json["tenant"] == name


@can(10)
async def test_the_longest_id_is_a_tenant(mesh: Mesh) -> None:
    async with mesh.program("l" * 63) as program:
        assert (await program.ask("notes.seen")).json["tenant"] == "l" * 63
