"""Staging: statements of a backfill that lie in sealed hours, until their interval is covered.

A sealed hour has no ledger any more, so a backfill of it replaces what the account has there as a whole. That
needs all statements of the interval at once, the newest revision of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

import numpy as np

from streams import blocks
from streams.blocks import BlockLog
from streams.changelog import Write
from streams.contexts import Contexts
from streams.contributions import HOUR_US, Contributions, Table, of_session, of_statements
from streams.coverage import Interval
from streams.decoding import WireEvent
from streams.gather import Gather
from streams.gathered import Rejection
from streams.index import I64, U64, distinct
from streams.ledger import Ledger
from streams.rollups import Rollups, split
from streams.sums import summed

PREFIX = "runs/"

_LONG_AGO = -(2**62)


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a run puts into sealed hours `[start, end)`, by number, in place of what the account has there."""

    tenant: str
    account: str
    start: int
    end: int
    cells: Contributions
    superseded: list[Write]
    """Tombstones of the statements, once the replacement is durable."""
    run: str = ""
    final: tuple[Interval, ...] = ()
    """What was final of the account before the run's interval was covered."""


def replace_at_hand(contexts: Contexts, rollups: Rollups, replacement: Replacement) -> list[U64]:
    """Carry a replacement out where the sealed cells are at hand; return the cells that it concerns."""
    keys = rollups.cells.live()
    hours = split(keys)[1]
    near = keys[(hours >= replacement.start) & (hours < replacement.end)]
    numbers = split(near)[0].tolist()
    own = {
        number: (contexts.tenant(number), contexts.account(number))
        == (replacement.tenant, replacement.account)
        for number in set(numbers)
    }
    old = near[np.array([own[number] for number in numbers], np.bool_)]
    rollups.add(old, -rollups.measured(old))
    rollups.add(*replacement.cells)
    return [old, replacement.cells.keys]


class Staging:
    """The runs of one partition that are under way.

    What is staged after a coverage event is another generation, named by the offset at which it began: the
    changelog may still hold both.
    """

    def __init__(self, contexts: Contexts, writer: int) -> None:
        self._contexts = contexts
        self._writer = writer
        self._runs: dict[str, _Run] = {}
        self._loaded: dict[str, _Run] = {}

    def begin(self, tenant: str, account: str, run: str, offset: int) -> str:
        """Return the name of the run's present generation, which begins here if there is none."""
        name = _run_name(tenant, account, run)
        if name not in self._runs:
            self._runs[name] = self._made(f"{name}/{offset}")
        return self._runs[name].name

    def take(self, event: WireEvent, origin: str) -> None:
        """Gather a backfill's records, whose run has begun."""
        self._runs[_run_name(event.tenant, event.account, event.run or "")].gather.take(
            event, origin, _LONG_AGO
        )

    def merge(self) -> list[Rejection]:
        """Merge what was gathered; return the losers of conflicts."""
        return [lost for run in self._runs.values() for lost in run.merge()]

    def name(self, tenant: str, account: str, run: str) -> str | None:
        """Return the name of the run's present generation, if there is one."""
        found = self._runs.get(_run_name(tenant, account, run))
        return found.name if found else None

    def replace(self, tenant: str, account: str, run: str, start: int, end: int) -> Replacement:
        """Return what the run's merged statements give to hours `[start, end)`; forget it if that is all."""
        name = _run_name(tenant, account, run)
        found = self._runs.get(name)
        if found is None:
            return Replacement(tenant, account, start, end, Contributions.none(), [])
        keys, measures = found.contributions()
        hours = split(keys)[1]
        kept = (hours >= start) & (hours < end)
        superseded: list[Write] = []
        if found.end() <= end:
            superseded = self._runs.pop(name).tombstones()
        cells = Contributions(*summed(keys[kept], measures[kept]))
        return Replacement(tenant, account, start, end, cells, superseded)

    def unsaved(self) -> list[Write]:
        """Return the changelog records that make durable what was merged."""
        return [write for run in self._runs.values() for write in run.unsaved()]

    def load(self, name: str, value: bytes | None) -> bool:
        """Take in a block during recovery; returns whether its contexts are known yet."""
        *generation, level, writer, sequence = name.removeprefix(PREFIX).split("/")
        run = self._loaded.setdefault("/".join(generation), self._made("/".join(generation)))
        return run.load(f"{level}/{writer}/{sequence}", value)

    def recovered(self, under_way: set[str]) -> list[Write]:
        """Keep the generations that are under way; return the tombstones of the others."""
        loaded, self._loaded = self._loaded, {}
        self._runs = {name.rpartition("/")[0]: run for name, run in loaded.items() if name in under_way}
        return [each for name, run in loaded.items() if name not in under_way for each in run.tombstones()]

    def _made(self, name: str) -> _Run:
        return _Run(name, self._contexts, self._writer)


def _run_name(tenant: str, account: str, run: str) -> str:
    return "/".join(quote(part, safe="") for part in (tenant, account, run))


class _Run:
    def __init__(self, name: str, contexts: Contexts, writer: int) -> None:
        self.name = name
        self.gather = Gather(contexts, timedelta.max)
        self._prefix = f"{PREFIX}{name}/"
        self._contexts = contexts
        self._ledger = Ledger(contexts.context)
        self._log = BlockLog(writer, self._statements)
        self._unsaved: list[I64] = []
        self._rows: list[I64] = []

    def merge(self) -> list[Rejection]:
        batch, rejections = self.gather.batch()
        if batch is None:
            return rejections
        merge = self._ledger.merge(*batch)
        self._unsaved.append(merge.rows)
        self._rows.append(merge.rows)
        return rejections + self.gather.settle(merge.conflicts)

    def unsaved(self) -> list[Write]:
        if not self._unsaved:
            return []
        rows, self._unsaved = distinct(np.concatenate(self._unsaved)), []
        return [(self._prefix + name, value) for name, value in self._log.write(rows)]

    def load(self, block: str, value: bytes | None) -> bool:
        if value is None:
            self._log.loaded(block, None)
            return True
        table, sessions = blocks.unpack(value)
        numbers = self._contexts.numbers(table["context"])
        if numbers is None:
            return False
        merge = self._ledger.merge({**table, "context": numbers}, sessions)
        self._log.loaded(block, merge.rows)
        self._rows.append(merge.rows)
        return True

    def contributions(self) -> Contributions:
        rows = self._all()
        parts = [of_statements(self._ledger.table(rows))]
        members: dict[bytes, list[int]] = {}
        for at, session in self._ledger.sessions(rows).items():
            members.setdefault(session, []).append(int(rows[at]))
        parts += [of_session(self._ledger.table(np.array(each))) for each in members.values()]
        return Contributions(
            np.concatenate([part.keys for part in parts]), np.concatenate([part.measures for part in parts])
        )

    def end(self) -> int:
        """Return the hour number by which every statement has begun."""
        starts = self._ledger.table(self._all())["start"].tolist()
        return max(starts, default=0) // HOUR_US + 1

    def tombstones(self) -> list[Write]:
        return [(self._prefix + name, None) for name in self._log.names()]

    def _all(self) -> I64:
        return distinct(np.concatenate(self._rows)) if self._rows else np.zeros(0, np.int64)

    def _statements(self, rows: I64) -> tuple[Table, dict[int, bytes]]:
        table = self._ledger.table(rows)
        return {**table, "context": self._contexts.names(table["context"])}, self._ledger.sessions(rows)
