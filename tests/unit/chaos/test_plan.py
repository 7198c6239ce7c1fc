from __future__ import annotations

from chaos.faults import KINDS, plan

TARGETS = {
    "tenant": ["t000", "t001"],
    "nats": ["nats"],
    "tenants": ["tenants"],
    "router": ["router-1", "router-2"],
    "worker": ["worker-1", "worker-2", "worker-3"],
}


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan(7, 600.0, TARGETS) == plan(7, 600.0, TARGETS)


def test_another_seed_gives_others() -> None:
    assert plan(7, 600.0, TARGETS) != plan(8, 600.0, TARGETS)


def test_a_long_plan_has_all_kinds() -> None:
    assert {fault.kind for fault in plan(7, 600.0, TARGETS)} == set(KINDS)


def test_kinds_can_be_chosen() -> None:
    assert {fault.kind for fault in plan(7, 600.0, TARGETS, ["kill", "cut"])} == {"kill", "cut"}


def test_all_faults_begin_in_time() -> None:
    assert all(0 < fault.at < 60.0 for fault in plan(7, 60.0, TARGETS))


def test_what_a_world_does_not_have_is_not_struck() -> None:
    targets = {"worker": ["worker-1"]}
    struck = {fault.target for fault in plan(7, 600.0, targets)}
    assert struck == {"worker-1", "worker"}


def test_most_processes_are_stopped_for_longer_than_a_lease() -> None:
    stops = [fault for fault in plan(7, 600.0, TARGETS) if fault.kind == "suspend"]
    assert sum(fault.seconds > 2.3 for fault in stops) > len(stops) / 2


def test_each_server_of_a_cluster_is_struck() -> None:
    nodes = ["nats-1", "nats-2", "nats-3"]
    struck = {fault.target for fault in plan(7, 600.0, TARGETS | {"nats": nodes})}
    assert struck >= {*nodes}
