"""Every kind of fault that the oracle is there for, made by hand: an oracle must see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.facts import Dead, Effect, Facts, Key, Sent, Stored
from chaos.oracle import WINDOW, judge

COUNT = 4


def command(number: int, tenant: str = "acme", kind: str = "plain") -> Stored:
    return Stored(number * 2, tenant, tenant, Key("p0", number), kind, float(number))


def event(number: int, tenant: str = "acme") -> Stored:
    return Stored(number * 2 + 1, tenant, tenant, Key("p0", number), "", number + 0.5)


def effect(number: int, tenant: str = "acme") -> Effect:
    return Effect(tenant, tenant, Key("p0", number), 1)


def letter(number: int, tenant: str = "acme", service: str = "chaos") -> Dead:
    return Dead(tenant, service, number * 2, number * 2, tenant, "handler_failed")


@pytest.fixture
def good() -> Facts:
    """One tenant, four commands, all as it must be."""
    numbers = range(1, COUNT + 1)
    return Facts(
        sent=[Sent("acme", Key("p0", number), "plain", number * 2) for number in numbers],
        commands=[command(number) for number in numbers],
        events=[event(number) for number in numbers],
        effects={service: [effect(n) for n in numbers] for service in ("chaos", "echo")},
    )


def found(facts: Facts) -> set[str]:
    return {finding.kind for finding in judge(facts).findings}


def of_chaos(good: Facts, *effects: Effect) -> Facts:
    return replace(good, effects={**good.effects, "chaos": list(effects)})


def test_a_good_run_has_no_findings(good: Facts) -> None:
    assert judge(good).findings == []


def test_an_acknowledged_command_that_is_not_in_the_journal(good: Facts) -> None:
    assert "not kept" in found(replace(good, commands=good.commands[:-1]))


def test_a_command_under_another_sequence_than_acknowledged(good: Facts) -> None:
    sent = [replace(good.sent[0], seq=good.sent[1].seq), *good.sent[1:]]
    assert found(replace(good, sent=sent)) == {"not kept"}


def test_a_command_without_effect(good: Facts) -> None:
    assert "lost" in found(of_chaos(good, *map(effect, (1, 2, 3))))


def test_an_event_without_effect_in_its_follower(good: Facts) -> None:
    effects = {**good.effects, "echo": [effect(1), effect(2), effect(4)]}
    assert found(replace(good, effects=effects)) == {"lost"}


def test_a_dead_letter_stands_for_an_effect(good: Facts) -> None:
    poisoned = replace(
        good,
        commands=[*good.commands[:-1], command(4, kind="poison")],
        events=good.events[:-1],
        effects={service: rows[:-1] for service, rows in good.effects.items()},
    )
    assert found(poisoned) == {"lost"}
    assert found(replace(poisoned, dead=[letter(4)])) == set()


def test_poison_with_an_effect(good: Facts) -> None:
    commands = [*good.commands[:-1], command(4, kind="poison")]
    assert found(replace(good, commands=commands)) == {"from nothing"}


def test_an_effect_without_a_command(good: Facts) -> None:
    assert "from nothing" in found(of_chaos(good, *good.effects["chaos"], effect(9)))


def test_an_effect_without_its_event(good: Facts) -> None:
    assert "event lost" in found(replace(good, events=good.events[1:]))


def test_an_event_without_its_effect(good: Facts) -> None:
    assert "event from nothing" in found(of_chaos(good, *map(effect, (1, 2, 3))))


def test_effects_out_of_order(good: Facts) -> None:
    assert found(of_chaos(good, *map(effect, (1, 3, 2, 4)))) == {"order of a producer"}


def test_effects_of_two_producers_out_of_order(good: Facts) -> None:
    other = Key("p1", 1)
    commands = [replace(command(1), key=other), *good.commands[1:]]
    facts = replace(
        of_chaos(good, effect(2), replace(effect(1), key=other), effect(3), effect(4)),
        commands=commands,
    )
    assert "order of a tenant" in found(facts)


def test_a_repeated_effect_is_counted_and_no_finding(good: Facts) -> None:
    verdict = judge(of_chaos(good, *map(effect, (1, 2, 1, 3, 4))))
    assert verdict.findings == []
    assert verdict.figures["doubled effects of chaos"] == 1


def test_tenants_have_an_order_each(good: Facts) -> None:
    both = replace(
        good,
        commands=[*good.commands, *(command(n + 10, "bolt") for n in (1, 2))],
        events=[*good.events, *(event(n + 10, "bolt") for n in (1, 2))],
        effects={
            service: [effect(11, "bolt"), *rows, effect(12, "bolt")]
            for service, rows in good.effects.items()
        },
    )
    assert judge(both).findings == []


def test_an_effect_in_the_book_of_another_tenant(good: Facts) -> None:
    stray = replace(effect(4), tenant="bolt")
    assert "crossed" in found(of_chaos(good, *map(effect, (1, 2, 3)), stray))


def test_an_event_under_the_subject_of_another_tenant(good: Facts) -> None:
    stray = replace(event(4), tenant="bolt")
    assert "crossed" in found(replace(good, events=[*good.events[:-1], stray]))


def test_a_dead_letter_under_another_tenant(good: Facts) -> None:
    assert "crossed" in found(replace(good, dead=[replace(letter(4), tenant="bolt")]))


def test_a_dead_letter_of_no_message(good: Facts) -> None:
    assert found(replace(good, dead=[letter(99)])) == {"letter of nothing"}


def test_a_dead_letter_that_names_another_sequence(good: Facts) -> None:
    assert found(replace(good, dead=[replace(letter(4), told=2)])) == {"bad letter"}


def test_an_event_stored_twice_within_the_window(good: Facts) -> None:
    again = replace(event(4), seq=99, at=event(4).at + WINDOW / 2)
    assert found(replace(good, events=[*good.events, again])) == {"stored twice"}


def test_an_event_stored_again_after_the_window_is_counted(good: Facts) -> None:
    again = replace(event(4), seq=99, at=event(4).at + WINDOW + 1)
    verdict = judge(replace(good, events=[*good.events, again]))
    assert verdict.findings == []
    assert verdict.figures["doubled events"] == 1


def test_a_consumer_that_is_not_done(good: Facts) -> None:
    assert found(replace(good, waiting={"chaos-1": 3})) == {"stuck"}


def test_a_tenant_that_is_still_read_apart(good: Facts) -> None:
    assert found(replace(good, behind=["chaos.acme"])) == {"stuck"}
