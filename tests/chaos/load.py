"""The load of the chaos suite: usage events out of a seed, with all that providers do to statements."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from streams.events import MAX_RECORDS, UsageEvent
from streams.usage import UsageRecord

STEADY: Final = "steady"
"""The tenant whose statements are repeated and late but never corrected: its totals can only grow."""

TENANTS: Final = (STEADY, *(f"tenant-{number}" for number in range(1, 8)))
ACCOUNTS: Final = ("emnify-a", "kore-b")
PROVIDERS: Final = {"emnify-a": "emnify", "kore-b": "kore"}

DUPLICATES: Final = 0.055
CORRECTIONS: Final = 0.04
LATE: Final = 0.022

SIMS: Final = 300
"""So many that most cells hold a single statement, and a correction that moves it leaves nothing there."""
HISTORY: Final = 3_000
"""Statements of an account that may still be repeated or corrected."""

NETWORKS: Final = (("DE", "262-01"), ("DE", "262-02"), ("FR", "208-01"), ("AT", None), (None, None))

Key = tuple[str, str]


def month_change() -> datetime:
    """Return the begin of the month before this one: past, and well inside horizon and retention."""
    this = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (this - timedelta(days=1)).replace(day=1)


class Load:
    """Events of a baseline, and live events that never touch the baseline's day. The seed decides all."""

    def __init__(self, seed: int, records: int) -> None:
        self._chance = random.Random(seed)
        self._number = 0
        self._history: dict[Key, list[UsageRecord]] = {}
        self._late: list[tuple[int, Key, UsageRecord]] = []
        self.records = records
        change = month_change()
        self.baseline_start = change - timedelta(days=4)
        self.baseline_end = self.baseline_start + timedelta(days=1)
        self.live_start = change - timedelta(days=2)
        self.live_end = change + timedelta(days=2)
        # The last two hours of the live time are kept by the minute.
        self._received = self.live_end
        self.kinds: Counter[str] = Counter()
        """How many records of which kind were made."""
        self.conflicts: set[tuple[str, int]] = set()
        """Identities and revisions that were given two payloads."""

    def baseline(self) -> Iterator[UsageEvent]:
        """Yield events of every tenant and account on the baseline's day, with a few corrections."""
        for tenant in TENANTS:
            for account in ACCOUNTS:
                records = [self._fresh(self.baseline_start, self.baseline_end) for _ in range(400)]
                yield self._event((tenant, account), records)
                if tenant != STEADY:
                    corrected = [
                        self._changed(r, self.baseline_start, self.baseline_end) for r in records[:40]
                    ]
                    yield self._event((tenant, account), corrected)

    def events(self) -> Iterator[UsageEvent]:
        """Yield live events until `records` records are out, and what was late behind them."""
        made, turn = 0, 0
        while made < self.records:
            turn += 1
            due = [late for late in self._late if late[0] <= turn]
            self._late = [late for late in self._late if late[0] > turn]
            key = (self._chance.choice(TENANTS), self._chance.choice(ACCOUNTS))
            batch = [record for _, owner, record in due if owner == key]
            self._late += [(turn + 1, owner, record) for _, owner, record in due if owner != key]
            for _ in range(self._chance.randint(100, 400)):
                record = self._next(key)
                if self._chance.random() < LATE:
                    self.kinds["late"] += 1
                    self._late.append((turn + self._chance.randint(1, 60), key, record))
                else:
                    batch.append(record)
            self._chance.shuffle(batch)
            for at in range(0, len(batch), MAX_RECORDS):
                yield self._event(key, batch[at : at + MAX_RECORDS])
            made += len(batch)
        for _, key, record in self._late:
            yield self._event(key, [record])

    def _next(self, key: Key) -> UsageRecord:
        history = self._history.setdefault(key, [])
        roll = self._chance.random()
        if roll < DUPLICATES and history:
            self.kinds["duplicate"] += 1
            return self._chance.choice(history)
        if roll < DUPLICATES + CORRECTIONS and history and key[0] != STEADY:
            at = self._chance.randrange(len(history))
            history[at] = self._changed(history[at], self.live_start, self.live_end)
            return history[at]
        self.kinds["new"] += 1
        record = self._fresh(self.live_start, self.live_end)
        if len(history) < HISTORY:
            history.append(record)
        else:
            history[self._chance.randrange(HISTORY)] = record
        return record

    def _fresh(self, start: datetime, end: datetime) -> UsageRecord:
        chance = self._chance
        self._number += 1
        total = chance.randrange(10**6)
        country, network = chance.choice(NETWORKS)
        at = start + timedelta(seconds=chance.randrange(int((end - start).total_seconds())))
        directed = chance.random() < 0.8
        money = chance.random() < 0.3
        return UsageRecord(
            identity=f"cdr:{self._number}",
            revision=1,
            semantics=chance.choice(("delta", "delta", "period_total")),
            start=at,
            end=at + timedelta(minutes=1),
            sim=f"89883030000{chance.randrange(SIMS):08d}",
            service="sms" if chance.random() < 0.05 else "data",
            total=total,
            rx=total // 3 if directed else None,
            tx=total - total // 3 if directed else None,
            billed=total + 17 if chance.random() < 0.2 else None,
            cost=Decimal(total) / 10**7 if money else None,
            currency=chance.choice(("EUR", "USD")) if money else None,
            cost_status=chance.choice(("complete", "pending")) if money else "unknown",
            country=country,
            network=network,
        )

    def _changed(self, record: UsageRecord, start: datetime, end: datetime) -> UsageRecord:
        chance = self._chance
        kind = chance.choice(("total", "hour", "sim", "country", "retraction", "conflict"))
        self.kinds[f"correction: {kind}"] += 1
        total = chance.randrange(10**6)
        update: dict[str, object] = {"revision": record.revision + 1}
        if kind in {"total", "conflict"}:
            update |= {"total": total, "rx": None, "tx": None}
        if kind == "conflict":
            update["revision"] = record.revision
            # Two retractions measure nothing, so they do not disagree.
            if not record.retracted:
                self.conflicts.add((record.identity, record.revision))
        if kind == "hour":
            at = start + timedelta(seconds=chance.randrange(int((end - start).total_seconds())))
            update |= {"start": at, "end": at + timedelta(minutes=1)}
        if kind == "sim":
            update["sim"] = f"89883030000{chance.randrange(SIMS):08d}"
        if kind == "country":
            update["country"], update["network"] = chance.choice(NETWORKS)
        if kind == "retraction":
            update["retracted"] = True
        return record.model_copy(update=update)

    def _event(self, key: Key, records: list[UsageRecord]) -> UsageEvent:
        tenant, account = key
        return UsageEvent(
            tenant=tenant,
            account=account,
            provider=PROVIDERS[account],
            source="poll",
            received_at=self._received,
            records=tuple(records),
        )
