"""Sealing: days leave the ledger for the archive, and backfills replace what is in it.

One sealing belongs to one flush. The archive is written first, then the changelog says where it lies, and
with the version that follows it holds; only then what it replaces is dropped. A kill in between repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from streams.archive import Archived, pack, unpack
from streams.changelog import Write
from streams.contributions import Contributions
from streams.index import U64
from streams.rollups import split
from streams.seals import Seal, Stale, day_of, month_of, names_of
from streams.staging import Replacement
from streams.state import PartitionState
from streams.sums import Matrix, summed


class Day(NamedTuple):
    """A day of an account, by its first hour number."""

    tenant: str
    account: str
    start: int


class Sealing:
    """What one flush moves to the archive. Call `seals`, `wanted`, `days`, `finish`, in this order."""

    @classmethod
    def of(cls, state: PartitionState) -> Self | None:
        """Return what must go to the archive now, if anything. Call it right after a merge."""
        replacements = state.take_replacements()
        tenants = {each.tenant for each in replacements}
        # One tenant at a time is enough: their days end alike, and each takes a moment.
        tenants.update([tenant for tenant in state.seals.tenants() if state.seals.is_due(tenant)][:1])
        return cls(state, sorted(tenants), replacements) if tenants else None

    def __init__(self, state: PartitionState, tenants: list[str], replacements: list[Replacement]) -> None:
        self._state = state
        self._until = {tenant: state.seals.due(tenant) for tenant in tenants}
        self._replacements = replacements
        self.stamp = ""
        """Name that no other sealing has: what is written bears it."""
        self._days: dict[Day, Archived] = {}
        self.dropped: list[tuple[Day, str, int]] = []
        """Days whose pieces nobody reads any more: the stamp that they bear, and their number."""
        self._frozen: dict[str, tuple[U64, Matrix]] = {}

    def seals(self, version: int) -> dict[str, list[Any]]:
        """Return what the changelog's version record says of these tenants when this is done."""
        self.stamp = f"{version}.{self._state.writer}"
        seals = ((tenant, self._state.seals.of(tenant)) for tenant in self._until)
        return {tenant: [seal.newest, self._until[tenant], self.stamp, seal.pins] for tenant, seal in seals}

    def wanted(self) -> list[int]:
        """Return the offsets of the archived pieces that have to be read first."""
        return sorted(offset for day in self._replaced_days() for offset in self._offsets(day))

    def days(self, pieces: Mapping[int, bytes]) -> dict[Day, list[bytes]]:
        """Return the pieces to write of each day; a day without any has none left."""
        state = self._state
        for tenant, until in self._until.items():
            keys, measured = state.rollups.seal(tenant, until)
            self._frozen[tenant] = keys, measured
            numbers, hours = split(keys)
            accounts = [state.contexts.account(number) for number in numbers.tolist()]
            for account in sorted(set(accounts)):
                of_account = np.array([each == account for each in accounts], np.bool_)
                for start in sorted({day_of(hour) for hour in hours[of_account].tolist()}):
                    at = of_account & (hours >= start) & (hours < start + 24)
                    cells = Archived(state.contexts.names(numbers[at]), hours[at], measured[at])
                    self._days[Day(tenant, account, start)] = cells
            self._count(tenant, keys, measured)
        for replacement in self._replacements:
            self._replace(replacement, pieces)
        return {day: pack(cells) for day, cells in self._days.items()}

    def finish(self, offsets: Mapping[Day, list[int]]) -> list[Write]:
        """Note where the days lie; return the changelog records that say so."""
        state = self._state
        writes: list[Write] = []
        for tenant, until in self._until.items():
            seal = state.seals.of(tenant)
            before = names_of(tenant, seal)
            seal.snapshot, seal.until = self.stamp, until
            for day, places in offsets.items():
                if day.tenant != tenant:
                    continue
                self._drop(day, seal)
                if places:
                    seal.days[day.account, day.start] = self.stamp, places
            self._expire(tenant, seal)
            for account, start, stamp, count, _ in seal.take_stale():
                self.dropped.append((Day(tenant, account, start), stamp, count))
            pieces = seal.dumps()
            seal.pieces = len(pieces)
            writes += zip(names_of(tenant, seal), pieces, strict=True)
            state.superseded((name, None) for name in before)
            state.superseded(state.retire(tenant))
            state.superseded(state.expire(tenant))
        for replacement in self._replacements:
            state.superseded(replacement.superseded)
        return writes + state.restating.unsaved_replaced(state.version)

    def touched(self) -> set[tuple[str, int]]:
        """Return the days of tenants whose published numbers a replacement may have changed."""
        return {(day.tenant, day.start) for day in self._replaced_days()}

    def _replaced_days(self) -> Iterator[Day]:
        for replacement in self._replacements:
            for start in range(day_of(replacement.start), replacement.end, 24):
                yield Day(replacement.tenant, replacement.account, start)

    def _offsets(self, day: Day) -> list[int]:
        return self._state.seals.of(day.tenant).offsets((day.account, day.start))

    def _replace(self, replacement: Replacement, pieces: Mapping[int, bytes]) -> None:
        state, contexts = self._state, self._state.contexts
        keys, measured = replacement.cells
        numbers, hours = split(keys)
        for start in range(day_of(replacement.start), replacement.end, 24):
            day = Day(replacement.tenant, replacement.account, start)
            old = self._days.get(day)
            if old is None:
                old = sum((unpack(pieces[offset]) for offset in self._offsets(day)), Archived.none())
            leaving = (old.hours >= replacement.start) & (old.hours < replacement.end)
            at = (hours >= start) & (hours < start + 24)
            new = Archived(contexts.names(numbers[at]), hours[at], measured[at])
            self._days[day] = old.where(~leaving) + new
            known = contexts.numbers(old.names[leaving])
            if known is None:
                raise RuntimeError(f"the archive of {day} names contexts that the state does not know")
            gone = known.astype(np.uint64) << np.uint64(32) | old.hours[leaving]
            state.restating.replace(
                replacement,
                Contributions(gone, old.measures[leaving]),
                Contributions(keys[at], measured[at]),
            )
            for cells, change in ((gone, -old.measures[leaving]), (keys[at], measured[at])):
                self._count(day.tenant, cells, change)
                state.rollups.add_to_months(cells, change)

    def _count(self, tenant: str, keys: U64, measured: Matrix) -> None:
        """Add to what the tenant's sealed hours give to months."""
        seal = self._state.seals.of(tenant)
        numbers, hours = split(keys)
        months = {hour: month_of(hour) for hour in set(hours.tolist())}
        groups = self._state.contexts.groups(numbers).astype(np.uint64) << np.uint64(32)
        places = groups | np.array([months[hour] for hour in hours.tolist()], np.uint64)
        for place, row in zip(*(each.tolist() for each in summed(places, measured)), strict=True):
            group = self._state.contexts.group_list[place >> 32][1]
            seal.add(place & 0xFFFFFFFF, tuple(group), row)

    def _drop(self, day: Day, seal: Seal) -> None:
        found = seal.days.pop((day.account, day.start), None)
        if found is not None:
            stamp, offsets = found
            seal.stale.append(Stale(day.account, day.start, stamp, len(offsets), seal.newest))

    def _expire(self, tenant: str, seal: Seal) -> None:
        kept = self._state.seals.kept_from(tenant)
        for account, start in [place for place in seal.days if place[1] + 24 <= kept]:
            self._drop(Day(tenant, account, start), seal)
        first = month_of(kept)
        for month, group in [each for each in seal.months if each[0] < first]:
            del seal.months[month, group]
