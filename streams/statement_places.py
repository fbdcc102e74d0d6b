"""Where single statements lie: by tenant, UTC day of their start, and a bucket of their SIM. Pure.

Statements that belong together mostly lie together. Those that do not (a correction that moved usage to
another day or SIM, a session over midnight, a statement that is spread over days) are linked, so that whoever
reads one finds the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np

from streams.columns import Columns
from streams.contributions import PRO_RATA, SESSION
from streams.digests import digest, digest_prefix
from streams.index import I64, U64, Index, distinct
from streams.ledger import DAY_US
from streams.statement_chunks import Statements

BUCKETS: Final = 16
"""Parts of a tenant's day: a question for one SIM reads one of them."""

_SIM_BITS: Final = 40
_SIM_MASK: Final = 2**_SIM_BITS - 1

Links = dict[str, set[int]]
"""Places of what is in more than one, by its key."""


def place_of(day: int, sim: str) -> int:
    """Return the number of the place of a SIM's statements that start on a day, in days since the epoch."""
    return day * BUCKETS + bucket_of(sim)


def bucket_of(sim: str) -> int:
    """Return the bucket of a SIM."""
    return int(sim) % BUCKETS


def places_of(statements: Statements) -> I64:
    """Return the place of each statement."""
    buckets = np.fromiter(map(bucket_of, statements.texts["sim"]), np.int64, len(statements))
    days: I64 = statements.numbers["start"] // DAY_US
    return days * BUCKETS + buckets


def day_of(place: int) -> int:
    """Return the day of a place."""
    return place // BUCKETS


def keys_of(tenant: str, statements: Statements) -> U64:
    """Return by what each statement's identity is known."""
    return _digested(tenant, statements, np.arange(len(statements)), "identity")


def session_keys_of(tenant: str, statements: Statements) -> tuple[I64, U64]:
    """Return the rows that belong to a session, and by what each of these is known."""
    rows = np.flatnonzero((statements.numbers["flags"] & SESSION) != 0)
    return rows, _digested(tenant, statements, rows, "session")


def link_name(key: int) -> str:
    """Return the name of a key's link."""
    return f"{key:016x}"


def spread_name(day: int) -> str:
    """Return the name of the link to what reaches into a day from an earlier one."""
    return f"day:{day}"


class Places:
    """What lies where, at 32 bytes a statement, so that what moves to another day or SIM is noticed."""

    def __init__(self) -> None:
        self._index = Index()
        self._columns = Columns(key=np.uint64, spot=np.uint64)
        self._links: dict[str, Links] = defaultdict(dict)

    def note(self, tenant: str, statements: Statements) -> Links:
        """Note statements; return the links that are new or lead to more places than before."""
        found = [*self._apart(tenant, statements), *_spread(statements)]
        links, changed = self._links[tenant], Links()
        for name, place in found:
            known = links.setdefault(name, set())
            if place not in known:
                known.add(place)
                changed[name] = known
        return changed

    def remember(self, tenant: str, statements: Statements) -> None:
        """Note statements that were there before: what lies apart has its link already."""
        self._apart(tenant, statements)

    def load(self, tenant: str, links: Links) -> None:
        """Take in links that were found before."""
        self._links[tenant] |= links

    def forget(self, day: int) -> None:
        """Forget what lies on days before this one."""
        column = self._columns["spot"]
        rows = np.flatnonzero((column < day << _SIM_BITS) & (column > 0))
        self._index.remove(self._columns["key"][rows], rows)
        self._columns.release(rows)
        for tenant, links in self._links.items():
            kept = {name: {place for place in known if day_of(place) >= day} for name, known in links.items()}
            self._links[tenant] = {name: known for name, known in kept.items() if known}

    def _apart(self, tenant: str, statements: Statements) -> list[tuple[str, int]]:
        days = statements.numbers["start"] // DAY_US
        sims = np.fromiter(map(int, statements.texts["sim"]), np.int64, len(statements)) & _SIM_MASK
        spots = (days << _SIM_BITS | sims).astype(np.uint64)
        rows, sessions = session_keys_of(tenant, statements)
        return [
            *self._elsewhere(keys_of(tenant, statements), spots),
            *self._elsewhere(sessions, spots[rows]),
        ]

    def _elsewhere(self, keys: U64, spots: U64) -> list[tuple[str, int]]:
        """Return the names of what lies in several spots, with their places; note what is new."""
        known = self._find(keys)
        fresh = np.flatnonzero(known < 0)
        if len(fresh):
            new, first = np.unique(keys[fresh], return_index=True)
            rows = self._columns.extend(len(new))
            self._columns["key"][rows] = new
            self._columns["spot"][rows] = spots[fresh[first]]
            self._index.place(new, rows)
            known = self._find(keys)
        held = self._columns["spot"][known]
        apart = np.flatnonzero(held != spots)
        names = [link_name(key) for key in keys[apart].tolist()]
        return [
            *zip(names, map(_place_of_spot, held[apart].tolist()), strict=True),
            *zip(names, map(_place_of_spot, spots[apart].tolist()), strict=True),
        ]

    def _find(self, keys: U64) -> I64:
        column = self._columns["key"]
        return self._index.find(keys, lambda rows, at: column[rows] == keys[at])


def _place_of_spot(spot: int) -> int:
    return (spot >> _SIM_BITS) * BUCKETS + (spot & _SIM_MASK) % BUCKETS


def _spread(statements: Statements) -> list[tuple[str, int]]:
    numbers, places = statements.numbers, places_of(statements)
    rows = np.flatnonzero((numbers["flags"] & PRO_RATA) != 0)
    return [
        (spread_name(day), place)
        for place, start, end in zip(
            *(column[rows].tolist() for column in (places, numbers["start"], numbers["end"])), strict=True
        )
        for day in range(start // DAY_US + 1, (end - 1) // DAY_US + 1)
    ]


def _digested(tenant: str, statements: Statements, rows: I64, text: str) -> U64:
    prefixes = [digest_prefix(tenant, origin.account) for origin in statements.origins]
    values = zip(statements.origin[rows].tolist(), statements.texts[text][rows].tolist(), strict=True)
    digests = b"".join(digest(prefixes[at], value) for at, value in values)
    return np.frombuffer(digests, np.uint64)[::2].copy()


def groups_of(places: I64) -> Iterator[tuple[int, I64]]:
    """Yield each place and its rows."""
    for place in distinct(places).tolist():
        yield place, np.flatnonzero(places == place)
