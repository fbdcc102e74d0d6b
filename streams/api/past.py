"""Cells as they were before some of them were restated. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streams.api.catalogue import Catalogue, Slice
from streams.cells import COLUMNS, Context, Measures, context_id, context_value, in_columns
from streams.restatements import Restatement

_CONTEXT_BITS = 32


class Past:
    """What cells measured before restatements: of several of one cell, before the first.

    Slices have to be given in ascending order; those of other hours go between them.
    """

    def __init__(self, catalogue: Catalogue, undone: Iterable[Restatement], first: int = 0) -> None:
        """`undone` is whole from some instant on; cells of hours numbered below `first` are left out."""
        old: dict[tuple[int, Context], Measures] = {}
        for each in sorted(undone, key=lambda restatement: restatement.revision):
            if each.hour >= first:
                for cell in each.cells:
                    old.setdefault((each.hour, cell.context), cell.old)
        values = [context_value(context) for _, context in old]
        publics = [context_id(value) for value in values]
        for public, value in zip(publics, values, strict=True):
            catalogue.learn(public, value)
        self._catalogue = catalogue
        hours = np.array([hour for hour, _ in old], np.int64)
        rows = np.array([in_columns(measures) for measures in old.values()], np.int64)
        order = np.argsort(hours, kind="stable")
        self._hours = hours[order]
        self._contexts = catalogue.numbers(publics)[order]
        self._rows = rows.reshape(-1, len(COLUMNS))[order]
        self._done = 0

    def replace(self, cells: Slice) -> Slice:
        """Return cells as they were, with those of hours before the last one that are not there any more."""
        if not len(cells.places):
            return cells
        low, high = self._done, int(np.searchsorted(self._hours, cells.places[-1], "right"))
        if low == high:
            return cells
        self._done = high
        hours = np.repeat(np.array(cells.places, np.int64), np.array(cells.sizes, np.int64))
        stays = ~np.isin(
            hours << _CONTEXT_BITS | cells.contexts,
            self._hours[low:high] << _CONTEXT_BITS | self._contexts[low:high],
        )
        hours = np.concatenate((hours[stays], self._hours[low:high]))
        order = np.argsort(hours, kind="stable")
        places, sizes = np.unique(hours, return_counts=True)
        return Slice(
            cells.catalogue,
            places,
            sizes,
            np.concatenate((cells.contexts[stays], self._contexts[low:high]))[order],
            np.concatenate((cells.measures[stays], self._rows[low:high]))[order],
        )

    def rest(self) -> Slice:
        """Return the cells of hours behind the last that was given."""
        hours = self._hours[self._done :]
        places, sizes = np.unique(hours, return_counts=True)
        return Slice(
            self._catalogue,
            places,
            sizes,
            self._contexts[self._done :],
            self._rows[self._done :],
        )
