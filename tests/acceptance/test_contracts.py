"""`tenantry subjects` and `tenantry schemas`."""

from __future__ import annotations

import json

from tests.acceptance.cli import Cli


def test_the_subjects_are_printed(alone: Cli) -> None:
    assert "`platform.tenants.create`" in alone.ok("subjects").out


def test_the_subjects_are_written(alone: Cli) -> None:
    assert alone.ok("subjects", "--write").out.strip() == "subjects.md"


def test_writing_again_says_that_nothing_changed(alone: Cli) -> None:
    alone.ok("subjects", "--write")
    assert alone.ok("subjects", "--write").err.strip() == "nothing has changed"


def test_all_schemas_are_printed(alone: Cli) -> None:
    assert "Plan" in json.loads(alone.ok("schemas").out)


def test_one_schema_is_printed(alone: Cli) -> None:
    assert json.loads(alone.ok("schemas", "Plan").out)["$id"] == "urn:tenantry:schema:Plan"


def test_an_unknown_message_is_told(alone: Cli) -> None:
    assert alone.fails("schemas", "Nothing").startswith("not_found: no message 'Nothing'")


def test_a_folder_that_is_none_is_told(alone: Cli) -> None:
    assert "nowhere is not a folder" in alone.fails("schemas", "--write", "--dir", "nowhere")
