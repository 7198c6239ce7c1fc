"""The oracle: from what was sent and what is there now, what went wrong, tenant by tenant.

It knows nothing of how the mesh works, imports nothing of it, and asks nothing: it only compares.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos.book import TRIES
from chaos.facts import COUNTED, LINES, STORED, Begun, Dead, Effect, Facts, Key, Stored

WINDOW = 110.0
"""For so long the journal surely drops a repeat: 120 s, less what clocks are worth."""

POISON = frozenset({"reject", "poison", "killer"})

LOST_MORE = 3
"""How often a message that ends its worker may begin beyond its tries."""

STILL = 10.0
"""How long killers must have been at work before others must have got further, seconds."""


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
    for check in _CHECKS:
        verdict.findings += check(case)
    verdict.figures = _figures(case)
    return verdict


class _Case:
    """The facts, by what they are looked up by: line, then tenant and key."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.by_seq = {each.seq: each for line in facts.stored.values() for each in line}
        self.stored = {line: _first(stored) for line, stored in facts.stored.items()}
        self.effect = {
            line: {(row.tenant, row.key): row for row in reversed(rows)}
            for line, rows in facts.effects.items()
        }
        # What a handler without state has done shows in the event that it left.
        self.effect["bare"] = {
            place: Effect(each.tenant, each.named, each.key, 0)
            for place, each in self.stored["bared"].items()
        }
        self.dead = {(letter.service, letter.seq): letter for letter in facts.dead}


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
        *case.by_seq.values(),
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
    for line, service in LINES.items():
        for (tenant, key), stored in case.stored[line].items():
            if (tenant, key) in case.effect[line] or (service, stored.seq) in case.dead:
                continue
            what = f"{line} {_name(key)} ({stored.kind or 'left'}, seq {stored.seq})"
            yield Finding("lost", tenant, f"{what} has no effect")


def _from_nothing(case: _Case) -> Iterator[Finding]:
    """No effect without a message, and none of what fails on purpose."""
    for line, effects in case.effect.items():
        for row in effects.values():
            cause = case.stored[line].get((row.tenant, row.key))
            if cause is None:
                yield Finding("from nothing", row.tenant, f"{line} {_name(row.key)}")
            elif cause.kind in POISON:
                what = f"{line} {_name(row.key)}, which fails on purpose"
                yield Finding("from nothing", row.tenant, what)


def _letters(case: _Case) -> Iterator[Finding]:
    """A dead letter is of a message of its tenant that fails on purpose, and says so."""
    for letter in case.facts.dead:
        stored = case.by_seq.get(letter.seq)
        where = f"dead.{letter.tenant}.{letter.service}.{letter.seq}"
        if stored is None or stored.tenant != letter.tenant:
            yield Finding("letter of nothing", letter.tenant, where)
        elif stored.kind not in POISON:
            what = f"{where} ({_name(stored.key)}): {letter.reason}, {letter.detail}"
            yield Finding("good message given up", letter.tenant, what)
        if letter.told != letter.seq or not letter.reason:
            what = f"{where} says seq {letter.told}, reason {letter.reason!r}"
            yield Finding("bad letter", letter.tenant, what)


def _left(case: _Case) -> Iterator[Finding]:
    """Every effect has left what it must, and nothing was left without its effect."""
    for place, row in case.effect["do"].items():
        command = case.stored["do"].get(place)
        if command is None or ("chaos", command.seq) in case.dead:
            continue
        for line in ("done", "late") if command.kind == "later" else ("done",):
            if place not in case.stored[line]:
                what = f"{_name(row.key)} (seq {command.seq}) by pid {row.pid} left no {line}"
                yield Finding("not left", row.tenant, what)
    for line in ("done", "late"):
        for tenant, key in case.stored[line]:
            if (tenant, key) not in case.effect["do"]:
                yield Finding("left by nothing", tenant, f"{line} {_name(key)}")


def _order(case: _Case) -> Iterator[Finding]:
    """The first effect of each message, in the journal's order; so are the events they left."""
    for line in ("do", "done", "late"):
        rows = [(row.tenant, row.key, f"by pid {row.pid}") for row in case.facts.effects[line]]
        yield from _overtaken(line, rows, case.stored[line])
    for line, event in (("do", "done"), ("bare", "bared")):
        events = [(each.tenant, each.key, f"as {each.seq}") for each in case.facts.stored[event]]
        yield from _overtaken(f"{line} emitting", events, case.stored[line])


def _once(case: _Case) -> Iterator[Finding]:
    """Each message of an ordered line has its effect once, and is counted once.

    A message that the journal took again after its window is another message.
    """
    for line in COUNTED:
        stored = Counter((each.tenant, each.key) for each in case.facts.stored[line])
        effects: dict[tuple[str, Key], list[Effect]] = defaultdict(list)
        for row in case.facts.effects[line]:
            effects[row.tenant, row.key].append(row)
        had: Counter[str] = Counter()
        for (tenant, key), rows in effects.items():
            had[tenant] += max(1, min(stored[tenant, key], len(rows)))
            if len(rows) > max(1, stored[tenant, key]):
                pids = ", ".join(str(row.pid) for row in rows)
                what = f"{line} {_name(key)} has {len(rows)} effects, by pids {pids}"
                yield Finding("effect again", tenant, what)
        counts = case.facts.counts.get(line, {})
        for tenant in sorted({*had, *counts}):
            if (counted := counts.get(tenant, 0)) != had[tenant]:
                what = f"{line} counts {counted}, and {had[tenant]} messages had their effect"
                yield Finding("counted wrong", tenant, what)


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
    for place, count in case.facts.waiting.items():
        if count:
            yield Finding("stuck", "", f"{place} has {count} messages that are not settled")
    for row, state in case.facts.replays.items():
        if state != "done":
            yield Finding("replay", row.partition(".")[2], f"the replay of {row} is {state}")
    for row in case.facts.behind:
        yield Finding("stuck", row.partition(".")[2], f"{row} is still sidelined")


def _doubled(case: _Case) -> Iterator[Finding]:
    """What the journal took twice although its window was open."""
    for line, all_stored in case.facts.stored.items():
        latest: dict[tuple[str, Key], Stored] = {}
        for stored in all_stored:
            former = latest.get((stored.tenant, stored.key))
            if former is not None and stored.at - former.at < WINDOW:
                text = f"{line} {_name(stored.key)} as {former.seq} and {stored.seq}"
                yield Finding("stored twice", stored.tenant, text)
            latest[stored.tenant, stored.key] = stored


def _killers(case: _Case) -> Iterator[Finding]:
    """A message that ends its worker is given up within its bound, and others go on meanwhile."""
    begun: dict[tuple[str, Key], list[Begun]] = defaultdict(list)
    for each in case.facts.begun:
        begun[each.tenant, each.key].append(each)
    for line in LINES:
        for place, stored in case.stored[line].items():
            if stored.kind == "killer":
                yield from _killer(case, line, stored, begun[place])


def _killer(case: _Case, line: str, stored: Stored, begun: Sequence[Begun]) -> Iterator[Finding]:
    name = f"{line} {_name(stored.key)} (seq {stored.seq})"
    if not begun:
        yield Finding("killer not begun", stored.tenant, name)
        return
    if len(begun) > TRIES + LOST_MORE:
        what = f"{name} began {len(begun)} times, and {TRIES + LOST_MORE} are its bound"
        yield Finding("killer begun too often", stored.tenant, what)
    first, last = begun[0].at, begun[-1].at
    if last - first < STILL:
        return
    others = [
        each
        for each in case.facts.stored["do"]
        if each.tenant != stored.tenant and first < each.at < last - STILL / 2
    ]
    went_on = any(
        each.tenant != stored.tenant and first < each.at < last
        for each in case.facts.stored["done"]
    )
    if others and not went_on:
        what = f"{len(others)} messages of others waited for {name}, {last - first:.0f} s"
        yield Finding("others stand still", stored.tenant, what)


def _figures(case: _Case) -> dict[str, int]:
    facts = case.facts
    figures = {"acknowledged": len(facts.sent)}
    for line in STORED:
        figures[f"{line}: stored"] = len(facts.stored[line])
        figures[f"{line}: stored again"] = len(facts.stored[line]) - len(case.stored[line])
    for line, effects in facts.effects.items():
        figures[f"{line}: effects"] = len(effects)
        figures[f"{line}: effects again"] = len(effects) - len(case.effect[line])
    figures["replays"] = len(facts.replays)
    figures["dead letters"] = len(facts.dead)
    figures["dead letters beside an effect"] = sum(_has_effect(case, each) for each in facts.dead)
    figures["killers"] = len({(each.tenant, each.key) for each in facts.begun})
    figures["workers ended by killers"] = len(facts.begun)
    return figures


def _has_effect(case: _Case, letter: Dead) -> bool:
    stored = case.by_seq.get(letter.seq)
    if stored is None:
        return False
    place = (letter.tenant, stored.key)
    return any(
        place in case.effect[line] and case.stored[line].get(place) == stored
        for line, service in LINES.items()
        if service == letter.service
    )


_CHECKS = (
    *(_crossed, _kept, _handled, _from_nothing, _letters, _left, _order),
    *(_once, _killers, _stuck, _doubled),
)
