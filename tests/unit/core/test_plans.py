"""Plans as documents."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import plans
from tenantry.errors import BadMessage, SetupError
from tenantry.messages import SHIPPED_PLANS, Override, Plan, Quota, Rate

WHOLE = """
[standard]
rate = 20
burst = 40
fail = "closed"
concurrency = 5
retention = "7d"
features = ["export"]

[[standard.rates]]
scope = "orders.place"
rate = 2
burst = 5
shadow = true

[[standard.quotas]]
period = "month"
amount = 1_000_000
hard = 1_200_000
between = "charge"
billing = true

[free]
rate = 0.5
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return tmp_path / "plans.toml"


def refused(document: Path, text: str) -> str:
    document.write_text(text)
    with pytest.raises(SetupError) as raised:
        plans.load(document)
    return raised.value.message.removeprefix(f"{document}: ")


def test_a_document_is_read(document: Path) -> None:
    document.write_text(WHOLE)
    standard, free = plans.load(document)
    assert standard == Plan(
        name="standard",
        rate=20,
        burst=40,
        fail="closed",
        concurrency=5,
        retention=7 * 86_400,
        features=("export",),
        rates=(Rate(scope="orders.place", rate=2, burst=5, shadow=True),),
        quotas=(
            Quota(period="month", amount=1_000_000, hard=1_200_000, between="charge", billing=True),
        ),
    )
    assert free == Plan(name="free", rate=0.5)


@pytest.mark.parametrize("plan", SHIPPED_PLANS, ids=lambda plan: plan.name)
def test_a_shipped_plan_comes_back_from_its_document(plan: Plan, document: Path) -> None:
    document.write_text(plans.dump(plan))
    assert plans.load(document) == [plan]


scopes = st.sampled_from(["", "orders", "orders.place", "ledger.total"])
rates = st.builds(
    Rate,
    scope=scopes.filter(bool),
    rate=st.floats(0.001, 1e6),
    burst=st.integers(1, 10**9),
    shadow=st.booleans(),
)
quotas = st.builds(
    Quota,
    scope=scopes,
    period=st.sampled_from(["day", "month"]),
    amount=st.integers(1, 10**12),
    delay=st.floats(0.01, 5),
)


@given(
    plan=st.builds(
        Plan,
        name=st.just("any"),
        rate=st.floats(0.001, 1e6),
        features=st.lists(st.sampled_from(["export", "sso"]), max_size=3).map(tuple),
        rates=st.lists(rates, max_size=3, unique_by=lambda rate: rate.scope).map(tuple),
        quotas=st.lists(quotas, max_size=3, unique_by=lambda quota: quota.name).map(tuple),
    )
)
def test_any_plan_comes_back_from_its_document(
    plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    document = tmp_path_factory.mktemp("plan") / "plan.toml"
    document.write_text(plans.dump(plan), "utf-8")
    assert plans.load(document) == [plan]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "has no plans"),
        ("rate = 5", "[rate] is no table"),
        ("[a]\nratee = 5", "[a] has no field 'ratee'"),
        ("[a]\nname = 'b'", "[a]: the name is that of the table"),
        ("[a]\nrate = 0", "[a]: Expected `float` > 0.0 - at `$.rate`"),
        ("[a]\nrate = 'fast'", "[a]: Expected `float`, got `str` - at `$.rate`"),
        ("[a-b]\nrate = 1", "[a-b]: "),
        ("[a]\njournal_bytes = 9", "[a]: journal_bytes 9 is less than max_body 262144"),
        ("[a]\nconnections = -1", "[a]: Expected `int` >= 0 - at `$.connections`"),
        ("[a]\nsubscriptions = -1", "[a]: Expected `int` >= 0 - at `$.subscriptions`"),
        ("[a]\nretention = 'long'", "[a]: Expected `int`, got `str` - at `$.retention`"),
        ("[[a.rates]]\nscope = 'x'\nrate = 1\nburst = 1\nper = 2", "rates[0] has no field 'per'"),
        ("[[a.rates]]\nscope = ''\nrate = 1\nburst = 1", "a rate without scope"),
        ("[[a.rates]]\nscope = 'x.y.z'\nrate = 1\nburst = 1", "[a]: Expected `str` matching"),
        ("[[a.quotas]]\nperiod = 'week'\namount = 1", "Invalid enum value 'week'"),
        ("[[a.quotas]]\nperiod = 'day'\namount = 5\nhard = 4", "hard 4 is less than the amount"),
        ("[[a.quotas]]\nperiod = 'day'\namount = 5\nsoft = 6", "soft 6 is more than hard"),
        ("[[a.quotas]]\nperiod = 'day'\namount = 5\nbetween = 'charge'", "nothing can be charged"),
        ("[a", "is not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(document: Path, text: str, error: str) -> None:
    document.write_text(text)
    with pytest.raises(SetupError) as raised:
        plans.load(document)
    assert error in raised.value.message


@pytest.mark.parametrize("kind", ["rates", "quotas"])
def test_a_limit_stands_once(document: Path, kind: str) -> None:
    fields = {
        "rates": "scope = 'x'\nrate = 1\nburst = 1\n",
        "quotas": "period = 'day'\namount = 1\n",
    }
    assert "two " in refused(document, f"[[a.{kind}]]\n{fields[kind]}" * 2)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such file"):
        plans.load(tmp_path / "none.toml")


def test_without_more_said_a_quota_is_soft_from_80_percent_and_hard_at_its_amount() -> None:
    quota = Quota(period="day", amount=1000)
    assert (quota.threshold, quota.limit) == (800, 1000)


def test_with_overage_a_quota_is_soft_from_its_amount() -> None:
    quota = Quota(period="day", amount=1000, hard=1500, between="charge")
    assert (quota.threshold, quota.limit) == (1000, 1500)


def test_an_override_holds_until_its_end() -> None:
    plan = Plan(name="standard", rate=5, burst=10)
    own = Override(until=100.0, rate=7)
    assert plans.effective(plan, own, 99.0) == Plan(name="standard", rate=7, burst=10)
    assert plans.effective(plan, own, 100.0) is plan


def test_no_override_leaves_the_plan_itself() -> None:
    plan = Plan(name="standard")
    assert plans.effective(plan, None, 0.0) is plan


def test_an_override_may_take_something_away() -> None:
    plan = Plan(name="standard", concurrency=5, quotas=(Quota(period="day", amount=1),))
    changed = plans.effective(plan, Override(concurrency=0, quotas=()), 0.0)
    assert (changed.concurrency, changed.quotas) == (0, ())


def test_an_override_is_read_without_a_table(document: Path) -> None:
    document.write_text("rate = 9\n[[quotas]]\nperiod = 'day'\namount = 7\n")
    own = plans.load_override(document)
    assert own == Override(rate=9, quotas=(Quota(period="day", amount=7),))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("until = 5", "`until` is an option of the command"),
        ("[standard]\nrate = 5", "has no field 'standard'"),
        ("[[quotas]]\nperiod = 'day'\namount = 2\nhard = 1", "hard 1 is less"),
    ],
)
def test_a_wrong_override_is_told(document: Path, text: str, error: str) -> None:
    document.write_text(text)
    with pytest.raises(SetupError) as raised:
        plans.load_override(document)
    assert error in raised.value.message


def test_differences_are_told_field_by_field() -> None:
    before = {"a": Plan(name="a", rate=1, burst=2)}
    after = [Plan(name="a", rate=3, burst=2)]
    assert plans.differences(before, after) == [plans.Change("a", "rate", 1, 3)]


def test_a_plan_that_is_new_differs_in_all_its_fields() -> None:
    found = plans.differences({}, [Plan(name="a")])
    assert {each.field for each in found} == set(Plan.__struct_fields__) - {"name"}


def test_a_plan_by_hand_is_checked_too() -> None:
    with pytest.raises(BadMessage, match="no name"):
        plans.check(Plan(name="Not One"))


@pytest.mark.parametrize(
    ("period", "text", "name", "end"),
    [
        ("day", "2026-11-21T23:59:59", "2026-11-21", "2026-11-22"),
        ("day", "2026-12-31T00:00:00", "2026-12-31", "2027-01-01"),
        ("month", "2026-11-30T23:59:59", "2026-11", "2026-12-01"),
        ("month", "2026-12-01T00:00:00", "2026-12", "2027-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02", "2028-03-01"),
    ],
)
def test_windows_are_those_of_the_calendar(period: str, text: str, name: str, end: str) -> None:
    now = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()
    until = dt.datetime.fromisoformat(end).replace(tzinfo=dt.UTC).timestamp()
    window = plans.window_of(period, now)
    assert (window.name, window.end) == (name, until)


@given(now=st.floats(0, 4e9), period=st.sampled_from(["day", "month"]))
def test_windows_follow_each_other_without_a_gap(now: float, period: str) -> None:
    window = plans.window_of(period, now)
    following = plans.window_of(period, window.end)
    assert window.begin <= now < window.end == following.begin
    assert window.name < following.name
