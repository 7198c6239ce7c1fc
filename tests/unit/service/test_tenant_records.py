"""How a tenant's record changes, and the event that each change becomes."""

from __future__ import annotations

import time
from typing import Any, get_args

import msgspec
import pytest

from tenantry import subjects
from tenantry.errors import Conflict, NotFound
from tenantry.messages import EVENT_OF_CHANGE, Credential, Tenant, TenantChange
from tenantry_workers.tenants.events import event_of
from tenantry_workers.tenants.publisher import event_name
from tenantry_workers.tenants.store import next_record, with_credential, without_credentials

LONG_AGO, FAR_AHEAD = 1_000.0, 9e9


def key(letter: str) -> str:
    return "U" + letter * 55


def credential(letter: str, **fields: Any) -> Credential:
    return Credential(public_key=key(letter), name=letter, issued=LONG_AGO, **fields)


def tenant(*credentials: Credential, **fields: Any) -> Tenant:
    return Tenant(
        id="acme",
        plan="standard",
        created=LONG_AGO,
        updated=LONG_AGO,
        credentials=credentials,
        **fields,
    )


def keys(record: Tenant) -> list[str]:
    return [held.public_key for held in record.credentials]


# a change


def test_a_change_makes_a_new_record_and_leaves_the_old() -> None:
    old = tenant()
    new = next_record(old, "suspended", "unpaid", state="suspended")
    assert (new.state, new.change, new.subject) == ("suspended", "suspended", "unpaid")
    assert old == tenant()


def test_a_change_is_dated() -> None:
    new = next_record(tenant(), "resumed")
    assert new.updated == pytest.approx(time.time(), abs=5)
    assert new.created == LONG_AGO


def test_a_change_forgets_what_the_one_before_was_about() -> None:
    suspended = next_record(tenant(), "suspended", "unpaid", state="suspended")
    assert next_record(suspended, "resumed", state="active").subject == ""


# credentials


def test_a_credential_is_added_at_the_end() -> None:
    new = with_credential(tenant(credential("A")), credential("B"))
    assert keys(new) == [key("A"), key("B")]
    assert (new.change, new.subject) == ("credentials_issued", key("B"))


def test_one_that_is_over_by_itself_goes() -> None:
    old = tenant(credential("A", expires=LONG_AGO), credential("B", expires=FAR_AHEAD))
    assert keys(with_credential(old, credential("C"))) == [key("B"), key("C")]


def test_one_that_was_revoked_stays_revoked() -> None:
    old = tenant(credential("A", revoked=LONG_AGO))
    assert with_credential(old, credential("B")).credentials[0].revoked == LONG_AGO


def test_a_key_has_credentials_once() -> None:
    with pytest.raises(Conflict, match="has credentials already"):
        with_credential(tenant(credential("A")), credential("A"))


def test_a_revoked_key_gets_none_again() -> None:
    with pytest.raises(Conflict, match="has credentials already"):
        with_credential(tenant(credential("A", revoked=LONG_AGO)), credential("A"))


def a_hundred(**fields: Any) -> list[Credential]:
    letters = "ABCDEFGHIJ"
    return [
        Credential(public_key="U" + one * 30 + two * 25, issued=LONG_AGO, **fields)
        for one in letters
        for two in letters
    ]


def test_those_that_were_revoked_take_no_place() -> None:
    new = with_credential(tenant(*a_hundred(revoked=LONG_AGO)), credential("Z"))
    assert len(new.credentials) == 101


def test_a_tenant_has_at_most_a_hundred() -> None:
    held = a_hundred()
    with pytest.raises(Conflict, match="acme has 100 credentials"):
        with_credential(tenant(*held), credential("Z"))
    assert len(with_credential(tenant(*held[1:]), credential("Z")).credentials) == 100


def test_one_credential_is_revoked() -> None:
    new = without_credentials(tenant(credential("A"), credential("B")), key("A"))
    assert new is not None
    assert [held.revoked is not None for held in new.credentials] == [True, False]
    assert (new.change, new.subject) == ("credentials_revoked", key("A"))


def test_all_credentials_are_revoked() -> None:
    new = without_credentials(tenant(credential("A"), credential("B")), None)
    assert new is not None
    assert all(held.revoked is not None for held in new.credentials)
    assert new.subject == ""


def test_one_revoked_before_keeps_its_time() -> None:
    old = tenant(credential("A", revoked=LONG_AGO), credential("B"))
    new = without_credentials(old, None)
    assert new is not None
    assert new.credentials[0].revoked == LONG_AGO


@pytest.mark.parametrize("which", [key("A"), None])
def test_revoking_twice_changes_nothing(which: str | None) -> None:
    assert without_credentials(tenant(credential("A", revoked=LONG_AGO)), which) is None


def test_where_there_are_none_nothing_is_revoked() -> None:
    assert without_credentials(tenant(), None) is None


def test_an_unknown_key_cannot_be_revoked() -> None:
    with pytest.raises(NotFound, match=key("B")):
        without_credentials(tenant(credential("A")), key("B"))


# events


@pytest.mark.parametrize(
    ("change", "action", "more"),
    [
        ("provisioned", "tenant_provisioned", {}),
        ("suspended", "tenant_suspended", {"reason": "about"}),
        ("resumed", "tenant_resumed", {}),
        ("plan_changed", "tenant_plan_changed", {}),
        ("limits_changed", "resource_quota_updated", {"note": "about"}),
        ("deleted", "tenant_deleted", {}),
        ("credentials_issued", "credentials_issued", {"public_key": "about"}),
        ("credentials_revoked", "credentials_revoked", {"public_key": "about"}),
    ],
)
def test_each_change_is_an_event(change: TenantChange, action: str, more: dict[str, str]) -> None:
    event = event_of(tenant(change=change, subject="about"))
    assert event_name(type(event)) == action
    common = {"tenant": "acme", "plan": "standard", "at": LONG_AGO}
    assert msgspec.to_builtins(event) == common | more
    assert type(event) is EVENT_OF_CHANGE[change]


@pytest.mark.parametrize("change", get_args(TenantChange))
def test_no_change_is_without_an_event(change: TenantChange) -> None:
    assert subjects.is_name(event_name(type(event_of(tenant(change=change)))))


def test_an_event_is_dated_by_its_change() -> None:
    assert event_of(next_record(tenant(), "resumed")).at > LONG_AGO
