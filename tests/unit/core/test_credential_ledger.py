"""What the tenants worker knows of all credentials, record by record."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tenantry.context.token import SKEW
from tenantry.messages import Credential, Override, Tenant
from tenantry_workers.tenants.ledger import GENERATION, CredentialLedger, Place, is_closed

SCOPE = "plan:standard#0"
HERE = ({SCOPE}, {"key"})


@pytest.fixture
def ledger() -> CredentialLedger:
    return CredentialLedger()


def credential(name: str, **fields: Any) -> Credential:
    common = {"public_key": name, "issued": 1.0, "scope": SCOPE, "signer": "key"}
    return Credential(**(common | fields))


def tenant(name: str, *credentials: Credential, **fields: Any) -> Tenant:
    common = {"id": name, "plan": "standard", "created": 1.0, "updated": 1.0}
    return Tenant(**(common | fields), credentials=credentials)


def test_a_key_is_its_tenants(ledger: CredentialLedger) -> None:
    ledger.note("acme", tenant("acme", credential("a")))
    assert (ledger.owner("a"), ledger.owner("b")) == ("acme", "")


def test_a_key_that_a_record_names_no_more_is_nobodys(ledger: CredentialLedger) -> None:
    ledger.note("acme", tenant("acme", credential("a")))
    ledger.note("acme", tenant("acme"))
    assert ledger.owner("a") == ""


def test_a_key_of_two_stays_the_firsts(ledger: CredentialLedger) -> None:
    ledger.note("acme", tenant("acme", credential("a")))
    ledger.note("globex", tenant("globex", credential("a")))
    ledger.note("globex", tenant("globex"))
    assert ledger.owner("a") == "acme"


def test_what_is_in_force_is_counted_by_what_signed_it(ledger: CredentialLedger) -> None:
    ledger.note("acme", tenant("acme", credential("a"), credential("b"), credential("c", scope="")))
    assert ledger.live == {Place("key", SCOPE): 2, Place("key", ""): 1}
    ledger.note("acme", None)
    assert not ledger.live


def test_what_is_revoked_is_told_with_its_second(ledger: CredentialLedger) -> None:
    ledger.note("acme", tenant("acme", credential("a", revoked=7.5)))
    ledger.note("gone", tenant("gone", credential("b", revoked=8.5), state="deleted"))
    assert ledger.revoked(*HERE) == ({"a": 8 + SKEW}, {"b": 9 + SKEW})
    ledger.note("acme", tenant("acme"))
    ledger.note("gone", None)
    assert ledger.revoked(*HERE) == ({}, {})


def test_what_nothing_signs_any_more_needs_no_revocation(ledger: CredentialLedger) -> None:
    old = [
        credential("a", revoked=7.5, scope="plan:standard#7"),
        credential("b", revoked=7.5, signer="lost"),
    ]
    ledger.note("acme", tenant("acme", *old, credential("c", revoked=7.5, scope="")))
    assert ledger.revoked(*HERE).kept.keys() == {"c"}


def test_what_a_replica_has_issued_whose_clock_was_ahead_is_revoked(
    ledger: CredentialLedger,
) -> None:
    ledger.note("acme", tenant("acme", credential("a", issued=1000.0, revoked=990.0)))
    assert ledger.revoked(*HERE).kept["a"] > 1000


def test_what_expires_is_neither_in_force_nor_revoked(ledger: CredentialLedger) -> None:
    end = time.time() + 60
    ledger.note(
        "acme",
        tenant("acme", credential("a", expires=end), credential("b", expires=end, revoked=7.5)),
    )
    assert ledger.live
    assert ledger.revoked(*HERE).kept
    past = tenant("acme", credential("a", expires=2.0), credential("b", expires=2.0, revoked=1.5))
    ledger.note("acme", past)
    assert not ledger.live
    assert not ledger.revoked(*HERE).kept


def test_an_expiry_is_noticed_without_a_change(
    ledger: CredentialLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = time.time() + 60
    ledger.note("acme", tenant("acme", credential("a", expires=end)))
    ledger.note("gone", tenant("gone", credential("b", expires=end)))
    ledger.note("gone", None)
    ledger.expire(end - 1)
    assert ledger.live
    monkeypatch.setattr(time, "time", lambda: end + 1)
    ledger.expire(end + 1)
    assert not ledger.live


def test_names_are_in_order(ledger: CredentialLedger) -> None:
    for name in ("globex", "acme", "initech", "acme"):
        ledger.note(name, tenant(name))
    ledger.note("nobody", None)
    assert ledger.names == ["acme", "globex", "initech"]
    ledger.note("globex", None)
    assert ledger.names == ["acme", "initech"]


def test_who_has_limits_of_its_own_is_known(ledger: CredentialLedger) -> None:
    own = tenant("acme", override=Override(rate=1.0))
    ledger.note("acme", own)
    ledger.note("globex", tenant("globex"))
    assert ledger.overridden == {"acme": own}
    ledger.note("acme", tenant("acme"))
    assert not ledger.overridden


@pytest.mark.parametrize(
    ("scope", "closed"), [("plan:p#0", True), ("plan:p#1", False), ("plan:p", False), ("", False)]
)
def test_a_generation_is_closed_one_later(scope: str, closed: bool) -> None:
    assert is_closed(scope, 2 * GENERATION) is closed


def test_a_change_costs_the_same_among_many(ledger: CredentialLedger) -> None:
    """A scan over all of these would take minutes."""
    for number in range(100_000):
        name = f"t{number:06}"
        ledger.note(name, tenant(name, credential(f"k{number}", scope=f"plan:p#{number // 1000}")))
    assert len(ledger.live) == 100
    assert ledger.owner("k99999") == "t099999"
