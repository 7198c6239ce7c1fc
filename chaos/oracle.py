"""The oracle: from what was sent and what is there now, what went wrong, tenant by tenant.

It knows nothing of how the mesh works, imports nothing of it, and asks nothing: it only compares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos.facts import Dead, Effect, Facts, Key, Stored

WINDOW = 110.0
"""For so long the journal surely drops a repeat: 120 s, less what clocks are worth."""

POISON = frozenset({"reject", "poison"})


class Finding(NamedTuple):
    """One broken promise."""

    kind: str
    tenant: str
    what: str


@dataclass(kw_only=True)
class Verdict:
    """What the oracle says; `figures` count what is allowed and still worth to know."""

    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def kinds(self) -> dict[str, int]:
        """How many findings of each kind."""
        counts: dict[str, int] = defaultdict(int)
        for finding in self.findings:
            counts[finding.kind] += 1
        return dict(counts)


def judge(facts: Facts) -> Verdict:
    """Compare everything with everything."""
    verdict = Verdict()
    case = _Case(facts)
    for check in (_crossed, _kept, _handled, _from_nothing, _letters, _emitted, _order, _stuck):
        verdict.findings += check(case)
    verdict.figures = _figures(case)
    verdict.findings += _doubled(case)
    return verdict


class _Case:
    """The facts, by what they are looked up by."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.by_seq = {stored.seq: stored for stored in (*facts.commands, *facts.events)}
        self.command = _first(facts.commands)
        self.event = _first(facts.events)
        self.effect = {
            service: {(row.tenant, row.key): row for row in reversed(rows)}
            for service, rows in facts.effects.items()
        }
        self.dead = {(letter.service, letter.seq): letter for letter in facts.dead}

    def cause(self, service: str) -> dict[tuple[str, Key], Stored]:
        """What each effect of a service comes from."""
        return self.command if service == "chaos" else self.event


def _first(stored: Iterable[Stored]) -> dict[tuple[str, Key], Stored]:
    found: dict[tuple[str, Key], Stored] = {}
    for each in stored:
        found.setdefault((each.tenant, each.key), each)
    return found


def _name(key: Key) -> str:
    return f"{key.producer}-{key.sequence}"


def _crossed(case: _Case) -> Iterator[Finding]:
    """Every body names its tenant: where it lies must be that tenant's."""
    everything: list[Stored | Effect | Dead] = [
        *case.facts.commands,
        *case.facts.events,
        *(row for rows in case.facts.effects.values() for row in rows),
        *case.facts.dead,
    ]
    for each in everything:
        if each.tenant != each.named:
            what = f"{type(each).__name__.lower()} of {each.named} found under {each.tenant}"
            yield Finding("crossed", each.tenant, what)


def _kept(case: _Case) -> Iterator[Finding]:
    """What was acknowledged is in the journal, where its acknowledgement said."""
    for sent in case.facts.sent:
        stored = case.by_seq.get(sent.seq)
        if stored is None or (stored.tenant, stored.key) != (sent.tenant, sent.key):
            what = f"{_name(sent.key)} was acknowledged as {sent.seq} and is not there"
            yield Finding("not kept", sent.tenant, what)


def _handled(case: _Case) -> Iterator[Finding]:
    """Every message had its effect or is a dead letter."""
    for service in case.facts.effects:
        for (tenant, key), stored in case.cause(service).items():
            if (tenant, key) in case.effect[service] or (service, stored.seq) in case.dead:
                continue
            what = f"{_name(key)} ({stored.kind or 'event'}, seq {stored.seq}) has no effect in"
            yield Finding("lost", tenant, f"{what} {service}")


def _from_nothing(case: _Case) -> Iterator[Finding]:
    """No effect without a message, and none of what fails on purpose."""
    for service, rows in case.facts.effects.items():
        causes = case.cause(service)
        for row in rows:
            cause = causes.get((row.tenant, row.key))
            if cause is None:
                yield Finding("from nothing", row.tenant, f"{service} did {_name(row.key)}")
            elif cause.kind in POISON:
                what = f"{service} did {_name(row.key)}, which fails on purpose"
                yield Finding("from nothing", row.tenant, what)


def _letters(case: _Case) -> Iterator[Finding]:
    """A dead letter is of a message of its tenant, and says so."""
    for letter in case.facts.dead:
        stored = case.by_seq.get(letter.seq)
        where = f"dead.{letter.tenant}.{letter.service}.{letter.seq}"
        if stored is None or stored.tenant != letter.tenant:
            yield Finding("letter of nothing", letter.tenant, where)
        if letter.told != letter.seq or not letter.reason:
            what = f"{where} says seq {letter.told}, reason {letter.reason!r}"
            yield Finding("bad letter", letter.tenant, what)


def _emitted(case: _Case) -> Iterator[Finding]:
    """Every effect left its event, and no event is without its effect."""
    for (tenant, key), row in case.effect["chaos"].items():
        command = case.command.get((tenant, key))
        if (tenant, key) not in case.event and command is not None:
            if ("chaos", command.seq) in case.dead:
                continue
            what = f"{_name(key)} (seq {command.seq}) had its effect by pid {row.pid}, no event"
            yield Finding("event lost", tenant, what)
    for tenant, key in case.event:
        if (tenant, key) not in case.effect["chaos"]:
            yield Finding("event from nothing", tenant, _name(key))


def _order(case: _Case) -> Iterator[Finding]:
    """The first effect of each message, in the journal's order; so are the events they left."""
    lines = {
        service: [(row.tenant, row.key, f"by pid {row.pid}") for row in rows]
        for service, rows in case.facts.effects.items()
    }
    lines["events"] = [(event.tenant, event.key, f"seq {event.seq}") for event in case.facts.events]
    for where, line in lines.items():
        causes = case.cause("echo" if where == "echo" else "chaos")
        yield from _overtaken(where, line, causes)


def _overtaken(
    where: str, line: list[tuple[str, Key, str]], causes: dict[tuple[str, Key], Stored]
) -> Iterator[Finding]:
    latest: dict[str, Stored] = {}
    seen: set[tuple[str, Key]] = set()
    for tenant, key, by in line:
        cause = causes.get((tenant, key))
        if cause is None or (tenant, key) in seen:
            continue
        seen.add((tenant, key))
        former = latest.get(tenant)
        if former is None or former.seq < cause.seq:
            latest[tenant] = cause
            continue
        own = former.key.producer == key.producer
        what = f"{where}: {_name(key)} (seq {cause.seq}) {by} after {_name(former.key)} "
        yield Finding(
            "order of a producer" if own else "order of a tenant",
            tenant,
            what + f"(seq {former.seq})",
        )


def _stuck(case: _Case) -> Iterator[Finding]:
    for consumer, count in case.facts.waiting.items():
        if count:
            yield Finding("stuck", "", f"consumer {consumer} has {count} messages not done with")
    for row in case.facts.behind:
        yield Finding("stuck", row.partition(".")[2], f"{row} is still read apart")


def _doubled(case: _Case) -> Iterator[Finding]:
    """What the journal took twice although its window was open."""
    for what, line in (("command", case.facts.commands), ("event", case.facts.events)):
        latest: dict[tuple[str, Key], Stored] = {}
        for stored in line:
            former = latest.get((stored.tenant, stored.key))
            if former is not None and stored.at - former.at < WINDOW:
                text = f"{what} {_name(stored.key)} as {former.seq} and {stored.seq}"
                yield Finding("stored twice", stored.tenant, text)
            latest[stored.tenant, stored.key] = stored


def _figures(case: _Case) -> dict[str, int]:
    facts = case.facts
    rows = {service: len(rows) for service, rows in facts.effects.items()}
    good = [letter for letter in facts.dead if _is_good(case, letter)]
    figures = {
        "acknowledged": len(facts.sent),
        "commands": len(facts.commands),
        "events": len(facts.events),
        "dead letters": len(facts.dead),
        "dead letters of good messages": len(good),
        "dead letters beside an effect": sum(_has_effect(case, letter) for letter in facts.dead),
        "doubled commands": len(facts.commands) - len(case.command),
        "doubled events": len(facts.events) - len(case.event),
    }
    for service, count in rows.items():
        figures[f"effects of {service}"] = count
        figures[f"doubled effects of {service}"] = count - len(case.effect[service])
    return figures


def _is_good(case: _Case, letter: Dead) -> bool:
    stored = case.by_seq.get(letter.seq)
    return stored is not None and stored.kind not in POISON


def _has_effect(case: _Case, letter: Dead) -> bool:
    stored = case.by_seq.get(letter.seq)
    return stored is not None and (letter.tenant, stored.key) in case.effect.get(letter.service, {})
