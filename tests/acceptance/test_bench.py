"""`make bench` as it is run: the figures of such a short run mean nothing, that they come does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import checks

ROOT = Path(__file__).parent.parent.parent
PARTS = ("requests", "propagation", "durable", "replay", "takeover", "idle", "backlog")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run saves."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    done = bench("--quick", *PARTS, "--json", str(file))
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
def test_a_run_saves_each_part_beside_the_machine(saved: dict[str, Any]) -> None:
    assert set(saved) == {"machine", "options", *PARTS}
    assert {"cpu", "cores", "date", "nats_server", "faststream"} <= set(saved["machine"])


@pytest.mark.slow
def test_every_side_answers_every_request(saved: dict[str, Any]) -> None:
    requests = saved["requests"]
    assert {"bare, two hops", "nats.micro", "FastStream, checks", "Tenantry"} <= set(
        requests["paced"]
    )
    assert requests["paced"].keys() == requests["ceiling"].keys()
    for (sample,) in (*requests["paced"].values(), *requests["ceiling"].values()):
        assert sample["lost"] == 0
        assert "worker" in sample["cpu"]


@pytest.mark.slow
def test_every_consumer_sees_its_last_message(saved: dict[str, Any]) -> None:
    sides = saved["durable"]["sides"]
    assert {"bare pull consumer", "FastStream", "bare, on the journal", "Tenantry"} <= set(sides)
    assert {"bare, our transport", "Tenantry, one key", "Tenantry, two keys and event"} <= set(
        sides
    )
    assert all(sample["rate"] > 0 for (sample,) in sides.values())


@pytest.mark.slow
def test_each_consumer_is_compared_with_a_bare_one_of_the_same_messages(
    saved: dict[str, Any],
) -> None:
    floors = saved["durable"]["floors"]
    assert floors.keys() == saved["durable"]["sides"].keys()
    assert floors["Tenantry"] == "bare, on the journal"
    assert floors["Tenantry, one key"] == "bare, one key"
    assert all(floors[floor] == floor for floor in floors.values())


@pytest.mark.slow
def test_a_replay_reads_what_the_ordered_consumer_reads(saved: dict[str, Any]) -> None:
    assert len(saved["replay"]["bare"]) == len(saved["replay"]["replay"]) == 1


@pytest.mark.slow
def test_each_fault_of_a_takeover_has_its_largest_latency(saved: dict[str, Any]) -> None:
    largest = saved["takeover"]["largest"]
    assert {name: len(each) for name, each in largest.items()} == {
        "no fault": 1,
        "kill -9": 1,
        "SIGTERM": 1,
        "an instance joins": 2,
    }
    assert saved["takeover"]["messages"] > 0


@pytest.mark.slow
def test_an_idle_service_is_heard_to_renew_its_leases(saved: dict[str, Any]) -> None:
    (sample,) = saved["idle"]["sides"]["Tenantry"]
    assert sample["operations"]["write of leases"] > 0
    assert sample["consumers"] > 0


@pytest.mark.slow
def test_others_are_measured_without_a_backlog_and_with_one(saved: dict[str, Any]) -> None:
    for crowd in ("apart", "sharing"):
        assert list(saved["backlog"][crowd]) == ["no backlog", "it is stored", "it waits"]


@pytest.mark.slow
def test_each_variant_is_measured_in_each_repetition(saved: dict[str, Any]) -> None:
    medians = saved["propagation"]["medians"]
    assert {"plain", "again", "signed", "two hops", "routed"} <= set(medians)
    assert {len(each) for each in medians.values()} == {saved["options"]["pairs"]}


def test_a_part_that_there_is_not_is_told_with_those_there_are() -> None:
    done = bench("nothing")
    assert done.returncode == 2
    assert "no part 'nothing': choose from requests, " in done.stderr


def test_the_checks_by_hand_admit_a_tenant_with_its_own_token() -> None:
    assert checks.authenticate("acme", checks.token("acme")).tenant == "acme"


def test_the_checks_by_hand_refuse_another_tenants_token_and_a_forged_one() -> None:
    with pytest.raises(checks.Refused, match="another tenant"):
        checks.authenticate("acme", checks.token("globex"))
    head, body, _ = checks.token("acme").split(".")
    with pytest.raises(checks.Refused, match="bad token"):
        checks.authenticate("acme", f"{head}.{body}.{'A' * 86}")
