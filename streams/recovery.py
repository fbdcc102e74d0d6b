"""Recovery: a partition's state on its way back from the changelog, and what is overheard there later."""

from __future__ import annotations

import re

import orjson

from streams import blocks
from streams.changelog import CONTEXTS, COVERAGE
from streams.contexts import Group
from streams.finals import PREFIX as _FINAL
from streams.levels import Levels
from streams.loading import Loading
from streams.reconciling import PREFIX as _TOTALS
from streams.said import PREFIX as _RESTATED
from streams.saving import Saving
from streams.seals import PREFIX as _SEALED
from streams.staging import PREFIX as _STAGED
from streams.vacated import PREFIX as _VACATED
from streams.versions import NEVER
from streams.versions import PREFIX as _VERSION


class Recovery:
    """The recovery of one partition, until it is `over`; from then on its state is in use."""

    def __init__(self, levels: Levels, saving: Saving) -> None:
        self._levels = levels
        self._saving = saving
        self._blocks = Loading(levels.contexts, levels.ledger, levels.log)
        self._waiting: list[tuple[str, bytes]] = []
        """Other records that name contexts which are not known yet."""
        self._others: set[str] = set()
        """Names of records in whose place we write our own."""
        self._snapshots: dict[tuple[str, str], dict[int, bytes]] = {}
        self.over = False

    @property
    def lacking(self) -> int:
        """How many records wait for their contexts, once the recovery is over."""
        return len(self._waiting) + len(self._blocks)

    def load(self, name: str, value: bytes | None) -> None:
        """Take in one changelog record, in any order and any number of times."""
        levels = self._levels
        if name.startswith((_VERSION, COVERAGE, _VACATED)):
            self._others.add(name)
        if name.startswith(_VERSION):
            found = levels.versions.load(name, value)
            self._saving.load(found)
            levels.seals.loads(found.seals)
        elif name.startswith(COVERAGE):
            if value is not None:
                self._load_coverage(value)
        elif name.startswith(_TOTALS):
            levels.reconciling.load(value)
        elif name.startswith(_RESTATED):
            levels.restating.load(name, value)
        elif name.startswith(_FINAL):
            levels.restating.finals.load(name, value)
        elif name.startswith(CONTEXTS):
            levels.contexts.load(name.removeprefix(CONTEXTS), value or b"[]")
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.load(*each)
        elif name.startswith(_SEALED):
            tenant, stamp, number = name.removeprefix(_SEALED).rsplit("/", 2)
            pieces = self._snapshots.setdefault((tenant, stamp), {})
            if value is None:
                pieces.pop(int(number), None)
            else:
                pieces[int(number)] = value
        elif name.startswith(_STAGED):
            if not levels.staging.load(name, value):
                self._waiting.append((name, value or b""))
        elif name.startswith(_VACATED):
            if value is not None and not self._load_vacated(value):
                self._waiting.append((name, value))
        elif value is None:
            self._blocks.drop(name)
        else:
            self._blocks.add(name, value)

    def end(self) -> None:
        """Bring the state to what the version says of it.

        A predecessor that does not know yet that it lost the partition may have written on. What it wrote
        of usage is true, but its version does not count any more once its successor has written one.
        """
        self.over = True
        levels, saving = self._levels, self._saving
        if levels.versions.succeed(saving.durable):
            saving.floor = NEVER
        self._blocks.merge()
        levels.log.recovered()
        # Old blocks speak of sealed hours too: what they said counts by way of the archive alone.
        for each in levels.ledger.contributions():
            open_ = ~levels.due.frozen(each.keys)
            levels.rollups.add(each.keys[open_], each.measures[open_])
        for tenant in levels.seals.tenants():
            self._restore_seal(tenant)
            saving.superseded(levels.retire(tenant))
            saving.superseded(levels.expire(tenant))
        levels.coverage.save_all()
        again, sorted_out = levels.restating.recovered(saving.durable)
        levels.due.cells(again)
        saving.superseded(sorted_out)
        saving.superseded((name, None) for name in sorted(self._stale()))
        under_way = {run for tenant in levels.seals.tenants() for run in levels.seals.of(tenant).pins}
        saving.superseded(levels.staging.recovered(under_way))
        levels.minutes.restore(levels.recent())
        if len(levels.ledger) > 0 or saving.version >= 0:
            levels.due.all_minutes()
        self._snapshots, self._others = {}, set()

    def overhear(self, name: str, value: bytes | None) -> None:
        """Take in what a predecessor wrote that did not know yet that it lost the partition: usage alone.

        After a rebalance that left the partition here, Faust reads what was written since: that is our own.
        """
        levels = self._levels
        if str(levels.writer) in re.split(r"[/.]", name) or value is None:
            return
        if name.startswith(_VERSION) and levels.versions.overheard(value):
            raise RuntimeError(f"another worker has taken the partition meanwhile, and wrote {name}")
        if name.startswith(CONTEXTS):
            levels.contexts.load(name.removeprefix(CONTEXTS), value)
        elif name[0].isdigit():
            self._overhear_block(name, value)

    def _load_coverage(self, value: bytes) -> None:
        # The first releases wrote neither a version nor what was covered before it.
        tenant, account, provider, *told = orjson.loads(value)
        intervals, version, before = [*told, -1, ()][:3]
        levels, of = self._levels, (tenant, account)
        levels.coverage.load(of, provider, [(start, end) for start, end in intervals])
        levels.restating.load_coverage(of, provider, intervals, version, before)

    def _load_vacated(self, value: bytes) -> bool:
        keys = self._levels.vacated.load(value)
        if keys is None:
            return False
        self._levels.due.cells(keys)
        return True

    def _restore_seal(self, tenant: str) -> None:
        seal = self._levels.seals.of(tenant)
        if seal.snapshot:
            pieces = self._snapshots[tenant, seal.snapshot]
            seal.pieces = len(pieces)
            seal.loads(pieces[number] for number in range(seal.pieces))
        months = ((month, Group(*group), row) for (month, group), row in seal.months.items())
        self._levels.rollups.restore_months(tenant, months)

    def _stale(self) -> set[str]:
        """Return the names of records that nobody needs once our own version is durable."""
        return (self._others - self._levels.versions.recent()) | {
            f"{_SEALED}{tenant}/{stamp}/{number}"
            for (tenant, stamp), pieces in self._snapshots.items()
            for number in pieces
            if stamp != self._levels.seals.of(tenant).snapshot
        }

    def _overhear_block(self, name: str, value: bytes) -> None:
        levels = self._levels
        table, sessions = blocks.unpack(value)
        numbers = levels.contexts.numbers(table["context"])
        if numbers is None:
            self._waiting.append((name, value))
            return
        merge = levels.ledger.merge({**table, "context": numbers}, sessions)
        counted = ~levels.due.frozen(merge.keys)
        levels.restating.watch(merge.keys[counted], merge.differences[counted], merge)
        levels.rollups.add(merge.keys[counted], merge.differences[counted])
        levels.log.loaded(name, merge.rows)
