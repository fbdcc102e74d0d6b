"""What is known of one account's things, compactly: a fleet of a million SIMs takes about 150 MB.

Of an item it remembers what look-ups need and a digest of the rest, which tells whether a listing shows
anything new. Histories are shared among the SIMs that have the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, Generic, TypeVar

from connectors.assignments import Standing
from connectors.slots import Slots, key_of
from connectors.values import EPOCH, micros
from streams.inventory import Item, Ownership, Places, content

_UNSEEN: Final = -(2**63)

T = TypeVar("T", bound=Hashable)


class Holdings:
    """The items and owners of one account."""

    def __init__(self) -> None:
        self.tenants: set[str] = set()
        """Everybody who ever owned one of the SIMs."""
        self._rows = Slots()
        self._names = Slots()
        self._things = Slots()
        self._digests = array("Q")
        self._sims = array("Q")
        self._as_of = array("q")
        self._standing = array("I")
        self._places = array("I")
        self._standings = _Shared(Standing())
        self._histories = _Shared[Places](())
        self._linked: dict[str, tuple[str, ...]] = {}

    def sims(self) -> Iterator[str]:
        """Yield the canonical ICCID of every SIM that was listed or told usage of."""
        return (f"{number:019d}" for number in self._sims)

    def standing(self, sim: str) -> Standing:
        """Return whose a SIM was and is; an empty standing for one that nobody ever owned."""
        row = self._rows.get(int(sim))
        return self._standings[0 if row is None else self._standing[row]]

    def as_of(self, sim: str) -> datetime | None:
        """Return the newest instant that the rules were asked about, or `None` where they never were."""
        row = self._rows.get(int(sim))
        found = _UNSEEN if row is None else self._as_of[row]
        return None if found == _UNSEEN else EPOCH + timedelta(microseconds=found)

    def heard(self, sim: str, as_of: datetime) -> None:
        """Note that the rules were asked about an instant and that nothing changed."""
        row = self._row(sim)
        self._as_of[row] = max(self._as_of[row], micros(as_of))

    def places(self, sim: str) -> Places:
        """Return where a SIM was by fleet and tags; nothing for one that no listing showed."""
        row = self._rows.get(int(sim))
        return self._histories[0 if row is None else self._places[row]]

    def sim_of(self, name: str) -> str | None:
        """Return the SIM with this `eid`, id or alias, by its newest ICCID."""
        row = self._names.get(key_of(name))
        return None if row is None else f"{self._sims[row]:019d}"

    def linked(self, sim: str) -> tuple[str, ...]:
        """Return the ICCIDs that this SIM has had, the newest first; itself alone where none was replaced."""
        return self._linked.get(sim, (sim,))

    def predecessors(self, item: Item) -> tuple[str, ...]:
        """Return the ICCIDs that the SIM had before, as its `eid` and its own ids show."""
        chain = self.linked(item.id)
        if chain[0] != item.id:
            # A listing may go on showing the ICCID that was replaced.
            return ()
        before = {self.sim_of(name) for name in _own_names(item)} - {None}
        known = {*chain, *(each for sim in before if sim is not None for each in self.linked(sim))}
        return tuple(sorted(known - {item.id}))

    def is_new(self, item: Item) -> bool:
        """Whether a listing's item says anything that was not published yet."""
        row = self._things.get(key_of(item.kind, item.id))
        return row is None or self._digests[row] != _digest(item)

    def take(self, entry: Item | Ownership) -> None:
        """Note what was read from the topic."""
        if isinstance(entry, Ownership):
            self._take_ownership(entry)
            return
        key = key_of(entry.kind, entry.id)
        row = self._things.get(key)
        if row is None:
            row = len(self._digests)
            self._things.put(key, row)
            self._digests.append(0)
        self._digests[row] = _digest(entry)
        if entry.kind == "sim":
            self._take_sim(entry)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that tables and columns take."""
        columns = (self._digests, self._sims, self._as_of, self._standing, self._places)
        tables = (self._rows, self._names, self._things)
        return sum(len(column) * column.itemsize for column in columns) + sum(each.nbytes for each in tables)

    def _take_ownership(self, entry: Ownership) -> None:
        row = self._row(entry.sim)
        if entry.version > self._standings[self._standing[row]].version:
            standing = Standing(entry.rule, entry.assignments, entry.version)
            self._standing[row] = self._standings.number(standing)
            self.tenants.update(each.tenant for each in entry.assignments if each.tenant is not None)
        self._as_of[row] = max(self._as_of[row], micros(entry.as_of))

    def _take_sim(self, item: Item) -> None:
        row = self._row(item.id)
        self._places[row] = self._histories.number(item.places)
        if item.replaces:
            chain = (item.id, *(sim for sim in item.replaces if sim != item.id))
            self._linked.update(dict.fromkeys(chain, chain))
        if self.linked(item.id)[0] == item.id:
            for name in (*item.aliases, *_own_names(item)):
                self._names.put(key_of(name), row)

    def _row(self, sim: str) -> int:
        number = int(sim)
        row = self._rows.get(number)
        if row is None:
            row = len(self._sims)
            self._rows.put(number, row)
            self._sims.append(number)
            self._as_of.append(_UNSEEN)
            self._standing.append(0)
            self._places.append(0)
        return row


class _Shared(Generic[T]):
    """Values by small numbers, each kept once; 0 is the empty one."""

    def __init__(self, empty: T) -> None:
        self._values = [empty]
        self._numbers = {empty: 0}

    def __getitem__(self, number: int) -> T:
        return self._values[number]

    def number(self, value: T) -> int:
        found = self._numbers.setdefault(value, len(self._values))
        if found == len(self._values):
            self._values.append(value)
        return found


def _own_names(item: Item) -> tuple[str, ...]:
    return (*item.ids.values(), *([item.eid] if item.eid else ()))


def _digest(item: Item) -> int:
    return int.from_bytes(blake2b(content(item), digest_size=8).digest())
