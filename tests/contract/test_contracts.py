"""The generated files say what the code says."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec
import pytest

from tenantry import contracts, messages, streams
from tenantry.service.service import RESERVED

ROOT = Path(__file__).parents[2]
SCHEMAS = contracts.schemas()


def test_subjects_page_is_current() -> None:
    text = (ROOT / "subjects.md").read_text()
    assert text == contracts.subjects_page(), "run `make contracts`"


def test_no_schema_is_missing_or_left_over() -> None:
    assert {path.name for path in (ROOT / "schemas").iterdir()} == SCHEMAS.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_current(name: str) -> None:
    assert (ROOT / "schemas" / name).read_text() == SCHEMAS[name], "run `make contracts`"


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(msgspec.json.decode(SCHEMAS[name]))


@pytest.mark.parametrize("plan", messages.SHIPPED_PLANS, ids=lambda plan: plan.name)
def test_a_shipped_plan_fits_its_schema(plan: messages.Plan) -> None:
    body = msgspec.json.decode(msgspec.json.encode(plan))
    jsonschema.validate(body, msgspec.json.decode(SCHEMAS["Plan.json"]))


def test_every_shipped_worker_declares_a_reserved_name() -> None:
    assert {service.name for service in contracts.shipped().values()} <= RESERVED


def test_every_change_of_a_tenant_has_an_event() -> None:
    assert messages.EVENT_OF_CHANGE.keys() == set(messages.TenantChange.__args__)


def test_subjects_page_names_the_journal() -> None:
    assert f"| {streams.JOURNAL} |" in contracts.subjects_page()


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    contracts.write_subjects(tmp_path)
    contracts.write_schemas(tmp_path)
    assert contracts.write_subjects(tmp_path) == []
    assert contracts.write_schemas(tmp_path) == []


def test_writing_removes_what_is_no_message_any_more(tmp_path: Path) -> None:
    contracts.write_schemas(tmp_path)
    stale = tmp_path / "schemas" / "Gone.json"
    stale.write_text("{}")
    assert contracts.write_schemas(tmp_path) == [stale]
