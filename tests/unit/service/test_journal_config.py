"""The journal's stream: what it keeps, and in which units."""

from __future__ import annotations

from tenantry.streams import JournalLimits, journal_config


def test_a_full_journal_refuses_and_forgets_nothing() -> None:
    made = journal_config(JournalLimits())
    assert (made["discard"], made["retention"], made["storage"]) == ("new", "limits", "file")


def test_the_journal_sorts_by_the_tenant() -> None:
    transform = journal_config(JournalLimits())["subject_transform"]
    assert transform == {
        "src": "tenant.*.*.*",
        "dest": "journal.{{partition(16,1)}}.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}",
    }


def test_limits_of_the_journal_are_in_the_units_of_the_server() -> None:
    made = journal_config(
        JournalLimits(max_bytes=5, max_age=1.5, max_message=7, replicas=3, dedup_window=0.25)
    )
    assert (made["max_bytes"], made["max_msg_size"], made["num_replicas"]) == (5, 7, 3)
    assert (made["max_age"], made["duplicate_window"]) == (1_500_000_000, 250_000_000)
