"""Minutes: exact over corrections, kills and the passing of time."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.cells import named
from streams.events import UsageEvent
from streams.rollups import split
from tests.oracle import BASE, Oracle, Sums, event, fold, fresh_state, minutes_of, usage

MINUTE = timedelta(minutes=1)

Published = dict[tuple[str, int, int], dict[str, int]]


def life(chance: random.Random) -> list[UsageEvent]:
    """Five hours of two tenants; statements of many lengths, some late, some moved or taken back."""
    events = []
    for step in range(40):
        now = BASE + step * 8 * MINUTE
        records = []
        for _ in range(chance.randrange(1, 4)):
            start = now - chance.randrange(200) * MINUTE - timedelta(seconds=chance.randrange(60))
            semantics = chance.choice(["delta", "delta", "delta", "session_total"])
            records.append(
                usage(
                    f"cdr:{chance.randrange(60)}",
                    chance.randrange(40),
                    chance.randrange(500),
                    start=start,
                    end=start + chance.choice([0, 1, 5, 6, 60]) * MINUTE,
                    sim=f"898830300000000000{chance.randrange(3)}",
                    country=chance.choice(["DE", "FR"]),
                    retracted=chance.random() < 0.1,
                    pro_rata=semantics == "delta" and chance.random() < 0.1,
                    semantics=semantics,
                    session="s" if semantics == "session_total" else None,
                )
            )
        tenant = chance.choice(["acme", "beta"])
        events.append(event(*records, tenant=tenant, received_at=now + chance.randrange(9) * MINUTE))
    return events


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_minutes_are_exact_over_corrections_kills_and_time(seed: int) -> None:
    """What is published is touched minutes alone, and everything after a recovery."""
    chance = random.Random(seed)
    events = life(chance)
    changelog: dict[str, bytes] = {}
    published: dict[tuple[str, int, str], dict[str, Sums]] = {}
    at = committed = 0
    state = fresh_state(writer=0)
    for flush in range(1, 500):
        fold(state, *events[at : at + 3], offset=at)
        at = min(at + 3, len(events))
        writes = state.changelog(state.unsaved())
        for name, value in writes:
            changelog.pop(name, None)
            if value is not None:
                changelog[name] = value
        state.saved(state.version)
        if chance.random() < 0.3:
            state = fresh_state(writer=flush)
            for name, value in changelog.items():
                state.load(name, value)
            at = committed
            continue
        touched = state.take_touched()
        if touched.all_minutes:
            published.clear()
        for tenant, minute in touched.old_minutes:
            for place in [place for place in published if place[:2] == (tenant, minute)]:
                del published[place]
        numbers, minutes = split(touched.minutes)
        rows = state.minutes.measured(touched.minutes).tolist()
        for number, minute, row in zip(numbers.tolist(), minutes.tolist(), rows, strict=True):
            context = state.contexts.context(number)
            of_sim = published.setdefault((state.contexts.tenant(number), minute, context.sim), {})
            of_sim[str(context)] = named(row)._asdict()
        committed = at
        if at == len(events) and not state.due.waits:
            break
    expected: dict[tuple[str, int, str], dict[str, Sums]] = {}
    oracle = Oracle().take(events).minutes()
    for (tenant, instant, context), sums in oracle.items():
        place = (tenant, int(instant.timestamp()) // 60, context.sim)
        expected.setdefault(place, {})[str(context)] = sums
    found = {
        place: kept
        for place, of_sim in published.items()
        if (kept := {context: sums for context, sums in of_sim.items() if any(sums.values())})
    }
    assert found == expected
    assert minutes_of(state) == oracle


def test_minutes_that_are_too_old_are_forgotten() -> None:
    state = fresh_state()
    for step in range(10):
        start = BASE + step * timedelta(hours=1)
        fold(state, event(usage(f"cdr:{step}", start=start, end=start), received_at=start), offset=step)
        touched = state.take_touched()
    assert len(state.minutes.live()) == 3
    assert touched.old_minutes == {("acme", int((BASE + timedelta(hours=6)).timestamp()) // 60)}
