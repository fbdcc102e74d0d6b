"""Restating: finds changes to hours that were final.

A change shows only while it is merged: once the ledger holds it, a replay changes nothing. So what cells
measured before goes to the changelog ahead of the ledger's blocks. If the flush comes to its end, that record
is the restatement; if it was cut short, its successor compares once more, with what the ledger holds by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np

from streams.causes import Causes, Sources
from streams.changelog import Write
from streams.contexts import Contexts
from streams.contributions import Contributions
from streams.coverage import Account, Covered, Interval, union
from streams.decoding import WireEvent
from streams.finality import Finality, Settle, whole_hours
from streams.finals import Finals
from streams.index import U64, distinct
from streams.ledger import Merge
from streams.restatements import Cause, Key, Restatement, read_restatement
from streams.rollups import Rollups, split
from streams.said import Record, Said, loads
from streams.seals import Seals
from streams.staging import Replacement
from streams.stating import Stating, matrix_of, placed
from streams.sums import Matrix, summed
from streams.versions import Standing, Versions

_NO_CELLS: U64 = np.zeros(0, np.uint64)

_HOUR_BITS = np.uint64(32)


class Restating:
    """The restatements of one partition's tenants."""

    def __init__(
        self,
        contexts: Contexts,
        rollups: Rollups,
        seals: Seals,
        versions: Versions,
        writer: int,
        settle: Settle | None,
    ) -> None:
        self._contexts = contexts
        self._rollups = rollups
        self._seals = seals
        self._versions = versions
        self.finals = Finals(writer, seals.kept_from)
        self.said = Said(versions, writer, self._newest)
        self._finality = Finality(contexts, settle)
        self._before: list[tuple[U64, Matrix]] = []
        """Cells that changed since the last flush, and what they measured before."""
        self._replaced: list[tuple[Replacement, U64, Matrix, Matrix]] = []
        self._covered: dict[Account, tuple[Interval, ...]] = {}
        self._loaded_coverage: list[tuple[Account, str, Iterable[Interval], int, Iterable[Interval]]] = []
        self._coming: dict[Account, Covered] = {}
        self._causes = Causes(self._finality)
        self._stating = Stating(contexts, self._finality, self.said)
        self._loaded: dict[str, Record] = {}
        self._recovered: list[tuple[int, Key, U64]] = []

    def cover(self, account: Account, covered: Covered, observed_at: datetime) -> None:
        """Note where an account is complete once what was gathered is merged: that came before."""
        self._coming[account] = covered
        at = max(self._newest(account[0]), int(observed_at.timestamp() * 1e6))
        self.finals.note(account, whole_hours(self._finality.parts(account, covered)), _second(at))

    def is_late(self, event: WireEvent) -> bool:
        """Whether an event changes hours that coverage has made final since the last merge.

        Then that has to be merged first. Finality in the order of the events makes a replay in other batches
        judge alike.
        """
        account = (event.tenant, event.account)
        if account not in self._coming:
            return False
        until = self._finality.until(account, self._coming[account])
        return until is not None and any(
            record.session is not None or record.start.timestamp() < until for record in event.records
        )

    def settle(self) -> None:
        """Take hours as final that are covered by now; everything that was gathered is merged."""
        coming, self._coming = self._coming, {}
        for account, covered in coming.items():
            self._finality.note(account, covered)

    def final_around(self, tenant: str, hour: int) -> dict[str, Interval]:
        """Return, by account of the tenant, the final interval that holds an hour number."""
        return self._finality.around(tenant, hour)

    def watch(self, keys: U64, differences: Matrix, merge: Merge, sources: Sources | None = None) -> None:
        """Look for changes to final hours in a merge, before they are added to the cells."""
        final = self._finality.holds(keys)
        if not final.any():
            return
        changed, sums = summed(keys[final], differences[final])
        changed = changed[sums.any(axis=1)]
        if len(changed):
            self._before.append((changed, self._rollups.measured(changed)))
            if sources is not None:
                self._causes.explain(changed, merge, sources)

    def final(self, account: Account) -> tuple[Interval, ...]:
        """Return what is final of an account by all coverage so far."""
        if account in self._coming:
            return self._finality.parts(account, self._coming[account])
        return self._finality.of(account)

    def save_coverage(self, account: Account, covered: Covered) -> tuple[Interval, ...]:
        """Return what was covered when an account's coverage was saved last; now it is saved anew.

        Coverage is saved ahead of the version that it belongs to: whoever recovers it without that has to
        judge by what was covered before.
        """
        before = self._covered.get(account, ())
        self._covered[account] = covered.intervals
        return before

    def load_coverage(
        self,
        account: Account,
        provider: str,
        intervals: Iterable[Interval],
        version: int,
        before: Iterable[Interval],
    ) -> None:
        """Take in what was saved of an account's coverage on the way to a version, and what before."""
        self._loaded_coverage.append((account, provider, intervals, version, before))

    def replace(self, replacement: Replacement, old: Contributions, new: Contributions) -> None:
        """Note what a backfill puts in the place of what sealed hours had, as far as they were final."""
        keys = distinct(np.concatenate((old.keys, new.keys)))
        hours = split(keys)[1]
        final = [part for part in replacement.final if part[0] < replacement.end * 3600]
        within = np.zeros(len(keys), np.bool_)
        for low, high in final:
            within |= (hours * 3600 >= low) & ((hours + 1) * 3600 <= high)
        keys = keys[within]
        self._replaced.append((replacement, keys, placed(old, keys), placed(new, keys)))

    def unsaved_replaced(self, version: int) -> list[Write]:
        """Return the changelog records of what was replaced in sealed hours; the archive has it by then.

        A kill before the version has the replacement repeated, so these need not come before anything.
        """
        replaced, self._replaced = self._replaced, []
        writes: list[Write] = []
        for replacement, keys, old, new in replaced:
            cause = Cause(("backfill",), (replacement.run,), ())
            causes = dict.fromkeys(self._stating.places(keys), cause)
            finals = {(replacement.tenant, replacement.account): replacement.final}
            writes += self._writes(version, self._stating.statements(version, keys, old, new, causes, finals))
        return writes

    def unsaved(self, version: int) -> list[Write]:
        """Return the changelog records of what changed since the last flush."""
        if not self._before:
            return []
        keys = np.concatenate([keys for keys, _ in self._before])
        # What a cell measured first is what was published.
        keys, first = np.unique(keys, return_index=True)
        old = np.concatenate([matrix for _, matrix in self._before])[first]
        causes, self._before = self._causes.take(), []
        measured = self._rollups.measured(keys)
        return self._writes(version, self._stating.statements(version, keys, old, measured, causes))

    def _writes(self, version: int, statements: Iterable[tuple[Restatement, list[int]]]) -> list[Write]:
        return [write for said, names in statements for write in self.said.say(version, said, names)]

    def load(self, name: str, value: bytes | None) -> None:
        """Take in a changelog record during recovery, in any order and any number of times."""
        self._loaded.pop(name, None)
        if value is not None:
            self._loaded[name] = loads(name, value)

    def recovered(self, durable: int) -> tuple[U64, list[Write]]:
        """Sort out what was loaded; return the cells to compare again, and tombstones."""
        for account, provider, intervals, version, before in self._loaded_coverage:
            known = self._covered.get(account, ())
            told = intervals if version <= durable else before
            self._covered[account] = union([*known, *((low, high) for low, high in told)])
            self._finality.note(account, Covered(provider, self._covered[account]))
        self._loaded_coverage = []
        loaded, self._loaded = self._loaded, {}
        gone: list[Write] = []
        pending: list[Record] = []
        for name, record in loaded.items():
            standing = self._versions.standing(record.writer, record.term, record.version)
            if standing is Standing.SETTLED:
                self.said.hold(name, record)
                self._recovered.append((record.version, record.key, self._keys(record)))
                continue
            gone.append((name, None))
            if standing is Standing.OPEN:
                pending.append(record)
        pending.sort(key=lambda record: (record.term, record.version, record.key))
        for record in pending:
            self._compare_again(record)
        self._recover_finals()
        return np.concatenate([_NO_CELLS, *(keys for keys, _ in self._before)]), gone

    def begin(self, offset: int) -> U64:
        """Say again what may not have been published yet; return the cells that it speaks of.

        `offset` is that of the first event since the recovery: flushes that end before it were published.
        """
        recovered, self._recovered = self._recovered, []
        again = [(key, cells) for version, key, cells in recovered if version >= offset]
        self.said.touch(key for key, _ in again)
        self.finals.begin(offset)
        return np.concatenate([_NO_CELLS, *(cells for _, cells in again)])

    def _newest(self, tenant: str) -> int:
        """Return the newest receipt of a tenant, of usage or of what is final, in microseconds."""
        return max(self._seals.of(tenant).newest, self.finals.latest(tenant) * 1_000_000)

    def _recover_finals(self) -> None:
        """Have it known of each final hour when it turned so: at the latest now, where nothing says it."""
        hours = {account: whole_hours(self._finality.of(account)) for account in self._covered}
        self.finals.recovered(lambda account: hours.get(account, ()))
        for account, final in sorted(hours.items()):
            self.finals.note(account, final, max(_second(self.said.stated(account[0])), 1))

    def _compare_again(self, record: Record) -> None:
        key, keys = record.key, self._keys(record)
        if not len(keys):
            return
        restatement = read_restatement(record.restatement())
        self._before.append((keys, matrix_of(each.old for each in restatement.cells)))
        self._causes.add((key.tenant, key.account, key.hour), restatement.cause)

    def _keys(self, record: Record) -> U64:
        """Return the cells that a record speaks of, none where they cannot be told or lie in the archive."""
        numbers = self._contexts.numbers(np.array(record.names, np.uint64))
        if numbers is None or record.key.hour < self._seals.of(record.key.tenant).until:
            return _NO_CELLS
        return numbers.astype(np.uint64) << _HOUR_BITS | np.uint64(record.key.hour)


def _second(microseconds: int) -> int:
    """Return the second by which an instant is past."""
    return -(-microseconds // 1_000_000)
