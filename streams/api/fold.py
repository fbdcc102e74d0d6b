"""The fold of cells into the rows of one page, in columns. Pure.

A SIM with two tags counts under each of them where tags are told apart, and once where they are not. Where a
question filters by tag and groups by it too, only the tags that it names have rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.aggregate import ByKind
from streams.api.catalogue import NONE, Catalogue, Numbers, Slice
from streams.api.filters import counted_values, matcher
from streams.api.query import Group, Position, UsageQuery
from streams.api.rows import Page, Row, filled, page
from streams.api.zones import UTC_CALENDAR, window_second
from streams.cells import COLUMNS, Context, named

_KINDS: Final = 10
_GROUPS: Final = 26
"""Bits of a key: window (minutes since the epoch), group, kind (service and currency)."""

_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400}

_Pairs = tuple[Numbers, Numbers]


class Fold:
    """Sums cells into one page of a question's rows, hours (or minutes) in ascending order.

    Memory holds the rows of the page, and the groups of one window beside the cells that were added last.
    """

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._unit = 60 if query.granularity == "minute" else 3600
        self._places = _Places(query)
        self._rows: list[Row] = []
        self._keys: Numbers = np.zeros(0, np.int64)
        self._sums: npt.NDArray[np.int64] = np.zeros((0, len(COLUMNS)), np.int64)
        self._sims: _Pairs = (self._keys, self._keys)
        self._endpoints: _Pairs = (self._keys, self._keys)

    def add(self, cells: Slice) -> bool:
        """Add cells behind those that were added before; return whether the page is full."""
        windows = self._windows(cells.places)
        used = np.flatnonzero(cells.measures.any(axis=1))
        window = np.repeat(windows, np.array(cells.sizes, np.int64))[used]
        cell, places = self._places.of(cells.catalogue, cells.contexts[used])
        keys = window[cell] << (_GROUPS + _KINDS) | places
        contexts = cells.contexts[used][cell]
        groups = keys >> _KINDS
        endpoints = cells.catalogue.endpoints(contexts)
        known = endpoints != NONE
        self._keys, self._sums = _summed(
            np.concatenate((self._keys, keys)), np.concatenate((self._sums, cells.measures[used][cell]))
        )
        self._sims = _distinct(self._sims, (groups, cells.catalogue.sims(contexts)))
        self._endpoints = _distinct(self._endpoints, (groups[known], endpoints[known]))
        if len(windows):
            self._close(int(windows[-1]))
        return len(self._rows) > self._query.limit

    def finish(self, now: datetime) -> Page:
        """Return the page."""
        self._close(1 << (62 - _GROUPS - _KINDS))
        return page(self._query, filled(self._query, self._rows, now))

    def _windows(self, places: Sequence[int] | Numbers) -> Numbers:
        """Return the start of the window that holds each hour (or minute), in minutes since the epoch."""
        granularity, calendar = self._query.granularity, self._query.calendar
        seconds = np.array(places, np.int64) * self._unit
        if granularity == "all":
            return np.full(len(places), int(self._query.start.timestamp()) // 60, np.int64)
        if granularity in _SECONDS and calendar == UTC_CALENDAR:
            return (seconds - seconds % _SECONDS[granularity]) // 60
        starts = [window_second(calendar, granularity, second) for second in seconds.tolist()]
        return np.array(starts, np.int64) // 60

    def _close(self, before: int) -> None:
        """Turn the windows before this one into rows."""
        done = int(np.searchsorted(self._keys, before << (_GROUPS + _KINDS)))
        keys, sums, self._keys, self._sums = (
            self._keys[:done], self._sums[:done], self._keys[done:], self._sums[done:],
        )  # fmt: skip
        self._sims, sims = _counted(self._sims, before << _GROUPS)
        self._endpoints, endpoints = _counted(self._endpoints, before << _GROUPS)
        windows: dict[int, dict[int, ByKind]] = defaultdict(lambda: defaultdict(dict))
        for key, row in zip(keys.tolist(), sums.tolist(), strict=True):
            place = key >> _KINDS
            windows[place >> _GROUPS][place][self._places.kind(key & (1 << _KINDS) - 1)] = named(row)
        for window, groups in windows.items():
            if len(self._rows) > self._query.limit:
                return
            start = datetime.fromtimestamp(window * 60, UTC)
            end = self._query.window_end(start)
            ordered = sorted(
                (Position.of(start, group := self._places.group(place & (1 << _GROUPS) - 1)), place, group)
                for place in groups
            )
            after = self._query.after
            for position, place, group in ordered:
                if after is None or position > after:
                    self._rows.append(
                        Row(start, end, group, groups[place], sims[place], endpoints.get(place, 0))
                    )


class _Places:
    """Which groups and which kind each context counts for."""

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._matches = matcher(query.filters)
        self._groups: dict[Group, int] = {}
        self._group_list: list[Group] = []
        self._kinds: dict[str, int] = {}
        self._kind_list: list[str] = []
        self._flat: list[int] = []
        self._starts: Numbers = np.zeros(0, np.int64)
        self._counts: Numbers = np.zeros(0, np.int64)

    def of(self, catalogue: Catalogue, contexts: Numbers) -> _Pairs:
        """Return the index and the places of some contexts; one has several where it counts for several.

        A place is a group and a kind in one number.
        """
        if len(self._counts) < len(catalogue):
            more = len(catalogue) - len(self._counts)
            self._starts = np.append(self._starts, np.zeros(more, np.int64))
            self._counts = np.append(self._counts, np.full(more, -1, np.int64))
        for number in np.unique(contexts[self._counts[contexts] < 0]).tolist():
            found = self._judge(catalogue.contexts[number])
            self._starts[number], self._counts[number] = len(self._flat), len(found)
            self._flat += found
        counts = self._counts[contexts]
        cell = np.repeat(np.arange(len(contexts)), counts)
        within = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
        return cell, np.array(self._flat, np.int64)[self._starts[contexts][cell] + within]

    def group(self, number: int) -> Group:
        """Return a group by its number."""
        return self._group_list[number]

    def kind(self, number: int) -> str:
        """Return a kind by its number."""
        return self._kind_list[number]

    def _judge(self, context: Context) -> list[int]:
        if not self._matches(context):
            return []
        kind = f"{context.service}|{context.currency or ''}"
        if kind not in self._kinds:
            self._kinds[kind] = len(self._kind_list)
            self._kind_list.append(kind)
        found = []
        for group in dict.fromkeys(
            product(*(counted_values(context, name, self._query.filters) for name in self._query.group_by))
        ):
            if group not in self._groups:
                self._groups[group] = len(self._group_list)
                self._group_list.append(group)
            found.append(self._groups[group] << _KINDS | self._kinds[kind])
        return found


def _summed(keys: Numbers, measures: npt.NDArray[np.int64]) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Return each key once, in order, with the sum of its measures."""
    if not len(keys):
        return keys, measures
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[starts], np.add.reduceat(measures[order], starts, axis=0)


def _distinct(some: _Pairs, more: _Pairs) -> _Pairs:
    """Return the pairs of both, each once and in order."""
    left, right = np.concatenate((some[0], more[0])), np.concatenate((some[1], more[1]))
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    first = np.ones(len(left), np.bool_)
    first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return left[first], right[first]


def _counted(pairs: _Pairs, before: int) -> tuple[_Pairs, dict[int, int]]:
    """Return the pairs from a key on, and of each key before it how many there are."""
    done = int(np.searchsorted(pairs[0], before))
    keys, counts = np.unique(pairs[0][:done], return_counts=True)
    counted = dict(zip(keys.tolist(), counts.tolist(), strict=True))
    return (pairs[0][done:], pairs[1][done:]), counted
