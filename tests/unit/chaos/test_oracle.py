"""Every kind of fault that the oracle is there for, made by hand: an oracle must see it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos.book import TRIES
from chaos.facts import Begun, Dead, Effect, Facts, Key, Sent, Stored
from chaos.oracle import LOST_MORE, WINDOW, judge

COUNT = 4


def command(number: int, tenant: str = "acme", kind: str = "plain") -> Stored:
    return Stored(number * 2, tenant, tenant, Key("p0", number), kind, float(number))


def event(number: int, tenant: str = "acme") -> Stored:
    return Stored(number * 2 + 1, tenant, tenant, Key("p0", number), "", number + 0.5)


def effect(number: int, tenant: str = "acme") -> Effect:
    return Effect(tenant, tenant, Key("p0", number), 1)


def letter(number: int, tenant: str = "acme", service: str = "chaos") -> Dead:
    return Dead(tenant, service, number * 2, number * 2, tenant, "handler_failed")


LINES: dict[str, list[Any]] = {"done": [], "late": [], "loose": []}
STORED: dict[str, list[Any]] = {**LINES, "bare": [], "bared": []}


@pytest.fixture
def good() -> Facts:
    """One tenant, four commands, all as it must be."""
    numbers = range(1, COUNT + 1)
    return Facts(
        sent=[Sent("acme", Key("p0", number), "plain", number * 2) for number in numbers],
        stored={**STORED, "do": [command(n) for n in numbers], "done": [event(n) for n in numbers]},
        effects={**LINES, "do": [effect(n) for n in numbers], "done": [effect(n) for n in numbers]},
        counts={"do": {"acme": COUNT}, "done": {"acme": COUNT}},
    )


def found(facts: Facts) -> set[str]:
    return {finding.kind for finding in judge(facts).findings}


def storing(good: Facts, line: str, *stored: Stored) -> Facts:
    return replace(good, stored={**good.stored, line: list(stored)})


def doing(good: Facts, line: str, *effects: Effect) -> Facts:
    """The same with other effects of a line, each message of them counted once."""
    counted: dict[str, int] = {}
    for tenant, _ in {(each.tenant, each.key) for each in effects}:
        counted[tenant] = counted.get(tenant, 0) + 1
    return replace(
        good,
        effects={**good.effects, line: list(effects)},
        counts={**good.counts, line: counted},
    )


def counting(good: Facts, line: str, count: int) -> Facts:
    return replace(good, counts={**good.counts, line: {"acme": count}})


def poisoned(good: Facts, number: int) -> Facts:
    """The same, with a last command that fails always."""
    stored = {line: each[: number - 1] for line, each in good.stored.items()}
    stored["do"] = [*stored["do"], command(number, kind="poison")]
    facts = replace(good, stored=stored)
    for line, each in good.effects.items():
        facts = doing(facts, line, *each[: number - 1])
    return facts


def with_later(good: Facts) -> Facts:
    """The same, with a last command that has sent another for later."""
    first = storing(good, "do", *good.stored["do"][:-1], command(4, kind="later"))
    return doing(storing(first, "late", replace(event(4), seq=99)), "late", effect(4))


def test_a_good_run_has_no_findings(good: Facts) -> None:
    assert judge(good).findings == []


def test_an_acknowledged_command_that_is_not_in_the_journal(good: Facts) -> None:
    assert "not kept" in found(storing(good, "do", *good.stored["do"][:-1]))


def test_a_command_under_another_sequence_than_acknowledged(good: Facts) -> None:
    sent = [replace(good.sent[0], seq=good.sent[1].seq), *good.sent[1:]]
    assert found(replace(good, sent=sent)) == {"not kept"}


def test_a_command_without_effect(good: Facts) -> None:
    assert "lost" in found(doing(good, "do", *map(effect, (1, 2, 3))))


def test_an_event_without_effect_in_its_follower(good: Facts) -> None:
    assert found(doing(good, "done", *map(effect, (1, 2, 4)))) == {"lost"}


def test_a_dead_letter_stands_for_an_effect(good: Facts) -> None:
    facts = poisoned(good, 4)
    assert found(facts) == {"lost"}
    assert found(replace(facts, dead=[letter(4)])) == set()


def test_a_dead_letter_of_another_service_does_not(good: Facts) -> None:
    assert found(replace(poisoned(good, 4), dead=[letter(4, service="echo")])) == {"lost"}


def test_poison_with_an_effect(good: Facts) -> None:
    facts = storing(good, "do", *good.stored["do"][:-1], command(4, kind="poison"))
    assert found(facts) == {"from nothing"}


def test_an_effect_without_a_command(good: Facts) -> None:
    assert "from nothing" in found(doing(good, "do", *good.effects["do"], effect(9)))


def test_an_effect_without_its_event(good: Facts) -> None:
    assert "not left" in found(storing(good, "done", *good.stored["done"][1:]))


def test_an_event_without_its_effect(good: Facts) -> None:
    assert "left by nothing" in found(doing(good, "do", *map(effect, (1, 2, 3))))


def test_a_later_command_that_comes(good: Facts) -> None:
    assert found(with_later(good)) == set()


def test_a_later_command_that_never_comes(good: Facts) -> None:
    assert "not left" in found(storing(with_later(good), "late"))


def test_a_later_command_without_effect(good: Facts) -> None:
    assert found(doing(with_later(good), "late")) == {"lost"}


def test_effects_out_of_order(good: Facts) -> None:
    assert found(doing(good, "do", *map(effect, (1, 3, 2, 4)))) == {"order of a producer"}


def test_effects_of_a_follower_out_of_order(good: Facts) -> None:
    assert found(doing(good, "done", *map(effect, (1, 3, 2, 4)))) == {"order of a producer"}


def test_events_emitted_out_of_order(good: Facts) -> None:
    stored = [event(1), replace(event(3), seq=50), replace(event(2), seq=51), event(4)]
    assert "order of a producer" in found(storing(good, "done", *stored))


def test_unordered_effects_have_no_order(good: Facts) -> None:
    loose = storing(good, "loose", *(replace(command(n), seq=n + 100) for n in (1, 2)))
    assert found(doing(loose, "loose", effect(2), effect(1))) == set()


def test_effects_of_two_producers_out_of_order(good: Facts) -> None:
    other = Key("p1", 1)
    facts = storing(good, "do", replace(command(1), key=other), *good.stored["do"][1:])
    effects = effect(2), replace(effect(1), key=other), effect(3), effect(4)
    assert "order of a tenant" in found(doing(facts, "do", *effects))


def test_a_repeated_effect(good: Facts) -> None:
    verdict = judge(doing(good, "do", *map(effect, (1, 2, 1, 3, 4))))
    assert {finding.kind for finding in verdict.findings} == {"effect again"}
    assert verdict.figures["do: effects again"] == 1


def test_a_repeated_effect_of_an_unordered_message_is_none(good: Facts) -> None:
    loose = storing(good, "loose", replace(command(1), seq=100))
    assert found(doing(loose, "loose", effect(1), effect(1))) == set()


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1, 0])
@pytest.mark.parametrize("line", ["do", "done"])
def test_a_message_that_was_not_counted_once(line: str, count: int, good: Facts) -> None:
    assert found(counting(good, line, count)) == {"counted wrong"}


def test_a_message_that_was_stored_again_after_the_window_counts_again(good: Facts) -> None:
    again = replace(event(4), seq=99, at=event(4).at + WINDOW + 1)
    facts = storing(good, "done", *good.stored["done"], again)
    facts = doing(facts, "done", *map(effect, (1, 2, 3, 4, 4)))
    assert found(counting(facts, "done", COUNT + 1)) == set()
    assert found(counting(facts, "done", COUNT)) == {"counted wrong"}


def bare(good: Facts, *events: Stored) -> Facts:
    """The same with two commands whose handler keeps no state, and what they left."""
    commands = (replace(command(n), seq=n + 200) for n in (1, 2))
    return storing(storing(good, "bare", *commands), "bared", *events)


def test_a_handler_without_state_leaves_one_event(good: Facts) -> None:
    events = [replace(event(n), seq=n + 300) for n in (1, 2)]
    assert found(bare(good, *events)) == set()
    assert found(bare(good, events[0])) == {"lost"}


def test_an_event_of_a_handler_without_state_that_is_stored_twice(good: Facts) -> None:
    events = [replace(event(n), seq=seq) for n, seq in ((1, 301), (2, 302), (2, 303))]
    assert found(bare(good, *events)) == {"stored twice"}


def test_the_same_after_the_window_is_counted(good: Facts) -> None:
    events = [replace(event(n), seq=n + 300) for n in (1, 2)]
    late = replace(events[1], seq=303, at=events[1].at + WINDOW + 1)
    verdict = judge(bare(good, *events, late))
    assert verdict.findings == []
    assert verdict.figures["bared: stored again"] == 1


def test_events_of_a_handler_without_state_out_of_order(good: Facts) -> None:
    events = [replace(event(n), seq=seq) for n, seq in ((2, 301), (1, 302))]
    assert found(bare(good, *events)) == {"order of a producer"}


def test_an_event_of_a_handler_without_state_and_without_a_command(good: Facts) -> None:
    events = [replace(event(n), seq=n + 300) for n in (1, 2, 3)]
    assert found(bare(good, *events)) == {"from nothing"}


def killed(good: Facts, times: int, *, lasts: float = 0.0) -> Facts:
    """The same, with a last command that ended its worker so many times, and is given up."""
    facts = poisoned(good, 4)
    stored = {**facts.stored, "do": [*facts.stored["do"][:-1], command(4, kind="killer")]}
    begun = [
        Begun("acme", Key("p0", 4), 100.0 + lasts * number / max(1, times - 1), number)
        for number in range(times)
    ]
    return replace(facts, stored=stored, begun=begun, dead=[letter(4)])


def test_a_killer_that_is_given_up_within_its_bound(good: Facts) -> None:
    assert found(killed(good, TRIES + LOST_MORE)) == set()
    assert found(killed(good, TRIES + LOST_MORE + 1)) == {"killer begun too often"}


def test_a_killer_that_never_began(good: Facts) -> None:
    assert found(killed(good, 0)) == {"killer not begun"}


def test_a_killer_that_is_not_given_up(good: Facts) -> None:
    assert found(replace(killed(good, 3), dead=[])) == {"lost"}


def others(facts: Facts, *events: Stored) -> Facts:
    """The same, with a command of another tenant while the killer was at work."""
    other = replace(command(11, "bolt"), at=101.0)
    facts = storing(facts, "do", *facts.stored["do"], other)
    facts = storing(facts, "done", *facts.stored["done"], *events)
    facts = replace(doing(facts, "do", *facts.effects["do"], effect(11, "bolt")))
    return doing(facts, "done", *facts.effects["done"], *(effect(11, "bolt") for _ in events))


def test_other_tenants_go_on_while_a_killer_is_at_work(good: Facts) -> None:
    facts = killed(good, 5, lasts=30.0)
    assert found(others(facts, replace(event(11, "bolt"), at=103.0))) == set()


def test_other_tenants_stand_still_while_a_killer_is_at_work(good: Facts) -> None:
    facts = killed(good, 5, lasts=30.0)
    assert found(others(facts, replace(event(11, "bolt"), at=140.0))) == {"others stand still"}


def test_a_good_message_that_was_given_up(good: Facts) -> None:
    assert found(replace(good, dead=[letter(4)])) == {"good message given up"}


def test_tenants_have_an_order_each(good: Facts) -> None:
    others = [replace(command(n + 10), tenant="bolt", named="bolt") for n in (1, 2)]
    events = [replace(event(n + 10), tenant="bolt", named="bolt") for n in (1, 2)]
    facts = storing(good, "do", *good.stored["do"], *others)
    facts = storing(facts, "done", *good.stored["done"], *events)
    for line in ("do", "done"):
        facts = doing(facts, line, effect(11, "bolt"), *good.effects[line], effect(12, "bolt"))
    assert judge(facts).findings == []


def test_an_effect_in_the_book_of_another_tenant(good: Facts) -> None:
    stray = replace(effect(4), tenant="bolt")
    assert "crossed" in found(doing(good, "do", *map(effect, (1, 2, 3)), stray))


def test_an_event_under_the_subject_of_another_tenant(good: Facts) -> None:
    stray = replace(event(4), tenant="bolt")
    assert "crossed" in found(storing(good, "done", *good.stored["done"][:-1], stray))


def test_a_dead_letter_under_another_tenant(good: Facts) -> None:
    assert "crossed" in found(replace(good, dead=[replace(letter(4), tenant="bolt")]))


def test_a_dead_letter_of_no_message(good: Facts) -> None:
    assert found(replace(good, dead=[letter(99)])) == {"letter of nothing"}


def test_a_dead_letter_that_names_another_sequence(good: Facts) -> None:
    facts = replace(poisoned(good, 4), dead=[replace(letter(4), told=2)])
    assert found(facts) == {"bad letter"}


def test_an_event_stored_twice_within_the_window(good: Facts) -> None:
    again = replace(event(4), seq=99, at=event(4).at + WINDOW / 2)
    assert found(storing(good, "done", *good.stored["done"], again)) == {"stored twice"}


def test_an_event_stored_again_after_the_window_is_counted(good: Facts) -> None:
    again = replace(event(4), seq=99, at=event(4).at + WINDOW + 1)
    facts = storing(good, "done", *good.stored["done"], again)
    verdict = judge(counting(facts, "done", COUNT))
    assert verdict.findings == []
    assert verdict.figures["done: stored again"] == 1


def test_a_partition_that_is_not_settled(good: Facts) -> None:
    assert found(replace(good, waiting={"chaos-1": 3})) == {"stuck"}


def test_a_tenant_that_is_still_sidelined(good: Facts) -> None:
    assert found(replace(good, behind=["chaos.acme"])) == {"stuck"}


@pytest.mark.parametrize("state", ["asked", "running", "failed", "cancelled"])
def test_a_replay_that_has_not_come_to_its_end(state: str, good: Facts) -> None:
    assert found(replace(good, replays={"echo.acme": state})) == {"replay"}


def test_a_replay_that_is_done(good: Facts) -> None:
    assert found(replace(good, replays={"echo.acme": "done"})) == set()
