"""Rejections on the wire: what is raised on one side is raised on the other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import errors
from tenantry.errors import BY_CODE, BadMessage, Conflict, HandlerFailed, RateLimited, Rejection
from tenantry.messages import Problem
from tenantry.wire import headers, problem

TRACE = "0af7651916cd43dd8448eb211c80319c"
KINDS = list(BY_CODE.values())

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
extensions = st.dictionaries(
    st.from_regex(r"[a-z]{1,3}(_[a-z]{1,8})?", fullmatch=True).filter(lambda name: name not in OWN),
    plain,
    max_size=4,
)
OWN = {"type", "title", "status", "detail", "code", "instance", "hint", "retry_after", "error"}
OWN |= {"path", "message", "self"}


def loaded(rejection: Rejection) -> Rejection:
    back = problem.load(*problem.dump(rejection, TRACE))
    assert back is not None
    return back


def document(rejection: Rejection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(problem.dump(rejection, TRACE)[1])
    return found


def test_a_member_that_is_no_number_is_left_out() -> None:
    assert "price" not in document(Conflict("no", price=float("nan"), more=1))


# there and back


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejection_comes_back_as_what_it_was(kind: type[Rejection]) -> None:
    assert type(loaded(kind("no"))) is kind


@given(st.sampled_from(KINDS), st.text(), st.text(), extensions)
def test_all_that_it_says_comes_back(
    kind: type[Rejection], message: str, hint: str, more: dict[str, Any]
) -> None:
    back = loaded(kind(message, hint=hint, **more))
    expected = message or f"{kind.code}:"
    assert (back.message.strip(), back.hint) == (expected.strip(), hint)
    assert more.items() <= back.extensions.items()


@given(st.floats(0, 1e6))
def test_the_seconds_until_a_retry_come_back(seconds: float) -> None:
    back = loaded(RateLimited("no", retry_after=seconds))
    assert back.retry_after == pytest.approx(seconds, abs=0.0006)


def test_without_a_retry_none_comes_back() -> None:
    assert loaded(Conflict("no")).retry_after is None


def test_the_path_of_a_fault_comes_back() -> None:
    back = loaded(BadMessage("no", path="$.items[2]"))
    assert isinstance(back, BadMessage)
    assert back.path == "$.items[2]"


@pytest.mark.parametrize("name", ["message", "self", "hints"])
def test_an_extension_may_have_any_name(name: str) -> None:
    assert loaded(Conflict("no", **{name: 1})).extensions[name] == 1


@pytest.mark.parametrize("name", sorted(OWN - {"hint", "retry_after", "path", "message", "self"}))
def test_an_extension_does_not_replace_a_member(name: str) -> None:
    plain, with_it = document(Conflict("no")), document(Conflict("no", **{name: "mine"}))
    assert with_it == plain


def test_passed_on_it_names_the_new_trace() -> None:
    back = loaded(Conflict("no"))
    passed_on = json.loads(problem.dump(back, "f" * 32)[1])
    assert passed_on["instance"] == f"urn:trace:{'f' * 32}"


# on the wire


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_is_problem_details(kind: type[Rejection]) -> None:
    body = problem.dump(kind("no", hint="do"), TRACE)[1]
    assert msgspec.json.decode(body, type=Problem) == Problem(
        type=kind.type or f"urn:tenantry:error:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail="no",
        code=kind.code,
        instance=f"urn:trace:{TRACE}",
        hint="do",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_headers_are_those_of_a_nats_service(kind: type[Rejection]) -> None:
    assert problem.dump(kind("no"), TRACE)[0] == {
        headers.ERROR_CODE: str(kind.status),
        headers.ERROR: f"{kind.code}: no",
        headers.CONTENT_TYPE: "application/problem+json",
    }


def test_a_jetstream_publish_finds_the_error_it_knows() -> None:
    assert document(Conflict("no"))["error"] == {
        "code": 409,
        "err_code": 0,
        "description": "conflict: no",
    }


@pytest.mark.parametrize(
    ("seconds", "header"), [(0, "1"), (0.01, "1"), (1.0, "1"), (1.001, "2"), (59.2, "60")]
)
def test_retry_after_is_in_whole_seconds_and_never_too_early(seconds: float, header: str) -> None:
    assert problem.dump(RateLimited("no", retry_after=seconds), TRACE)[0]["Retry-After"] == header


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_retry_that_never_comes_is_not_told(seconds: float) -> None:
    fields, body = problem.dump(RateLimited("no", retry_after=seconds), TRACE)
    assert "Retry-After" not in fields
    assert "retry_after" not in json.loads(body)


def test_names_of_extensions_have_dashes() -> None:
    assert document(RateLimited("no", violated_policies=["x"]))["violated-policies"] == ["x"]


@given(st.text())
def test_a_header_is_one_short_line(message: str) -> None:
    line = problem.dump(Conflict(message), TRACE)[0][headers.ERROR]
    assert len(line.splitlines()) == 1
    assert len(line) < 320
    line.encode()


def test_a_text_of_several_lines_is_whole_in_the_body() -> None:
    assert document(Conflict("one\r\ntwo"))["detail"] == "one\r\ntwo"


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, "\ud800", print])
def test_an_extension_that_json_cannot_carry_is_left_out(value: Any) -> None:
    assert loaded(Conflict("no", bad=value, good=1)).extensions.get("good") == 1
    assert "bad" not in document(Conflict("no", bad=value))


def test_an_extension_without_end_is_left_out() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "bad" not in document(Conflict("no", bad=endless))


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert loaded(Conflict("file \udcff", hint="\udcff")).message == "file ?"


# results and garbage


@pytest.mark.parametrize("fields", [None, {}, {"Content-Type": "application/json"}])
def test_a_result_is_no_rejection(fields: dict[str, str] | None) -> None:
    assert problem.load(fields, b'{"code": "conflict"}') is None


def test_an_unknown_code_is_a_failure() -> None:
    back = problem.load({headers.ERROR_CODE: "418"}, b'{"code": "teapot", "detail": "short"}')
    assert isinstance(back, HandlerFailed)
    assert back.message == "short"


def test_a_service_that_is_not_ours_is_understood() -> None:
    """ADR-32 asks for the two headers only."""
    back = problem.load({headers.ERROR_CODE: "500", headers.ERROR: "it broke"}, b"")
    assert isinstance(back, HandlerFailed)
    assert back.message == "it broke"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"code": 7, "detail": 8, "hint": 9, "retry_after": "soon", "status": "x"}',
        b'{"code": ["conflict"]}',
        b'{"code": "conflict", "message": 1, "self": 2, "path": 3, "retry-after": 4}',
        b'{"code": "bad_message", "path": {"a": 1}, "message": 1}',
        b'{"retry_after": true}',
    ],
)
def test_garbage_with_the_header_of_an_error_is_an_error(body: bytes) -> None:
    assert isinstance(problem.load({headers.ERROR_CODE: "500"}, body), Rejection)


@given(st.binary(max_size=60) | plain.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_with_the_header_is_an_error(body: bytes) -> None:
    assert isinstance(problem.load({headers.ERROR_CODE: "500"}, body), Rejection)


# whose a rejection is


def test_what_a_handler_raises_is_its_own() -> None:
    assert not Conflict("no").inside


def test_what_the_mesh_gave_to_a_handler_is_marked() -> None:
    with pytest.raises(Conflict) as caught, errors.from_inside():
        raise Conflict("no")
    assert caught.value.inside


def test_another_error_passes_unmarked() -> None:
    with pytest.raises(KeyError), errors.from_inside():
        raise KeyError


# the tree


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_names_its_kind(kind: type[Rejection]) -> None:
    assert BY_CODE[kind.code] is kind


def test_every_rejection_can_come_back() -> None:
    assert {kind for kind in kinds_of(Rejection) if "code" in vars(kind)} == set(KINDS)


def kinds_of(kind: type[Rejection]) -> set[type[Rejection]]:
    below = set(kind.__subclasses__())
    return below.union(*map(kinds_of, below))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejection_has_a_status_of_http(kind: type[Rejection]) -> None:
    assert 400 <= kind.status < 600


def test_the_hint_follows_the_message() -> None:
    assert str(errors.NotFound("no tenant", hint="see the list")) == "no tenant (see the list)"


def test_without_a_hint_there_is_the_message() -> None:
    assert str(errors.NotFound("no tenant")) == "no tenant"
