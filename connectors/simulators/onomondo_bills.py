"""Onomondo's bills in the order in which `/usage` lists them: by time, then SIM."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

from connectors.simulators.faults import one_in_ten
from connectors.simulators.fleet import ONOMONDO_ACCOUNT
from connectors.simulators.onomondo_filter import Filter
from connectors.simulators.onomondo_rows import bill_id, sim_id
from connectors.simulators.settings import OnomondoSettings
from connectors.simulators.usage import Clock, Usage, UsageHistory


class OnomondoBills:
    """Data usage only: SMS go to the webhook. The list is kept sorted, so that a page costs its own rows."""

    def __init__(
        self, history: UsageHistory, settings: OnomondoSettings, faults: frozenset[str], clock: Clock
    ) -> None:
        self._history = history
        self._late_by = timedelta(seconds=settings.late_seconds) if "onomondo-late-rows" in faults else None
        self._clock = clock
        self._taken = 0
        self._bills: list[tuple[str, Usage]] = []

    def all(self) -> list[Usage]:
        """Every bill, those too that are late and not shown yet."""
        self._advance()
        return [usage for _, usage in self._bills]

    def matching(self, wanted: Filter, after: str | None = None) -> Iterator[tuple[str, Usage]]:
        """The bills that a filter lets through, with the place of each, behind the place `after`."""
        self._advance()
        low, high = self._span(wanted.time or "")
        if after is not None:
            low = max(low, bisect_right(self._bills, after, key=_place))
        for place, usage in islice(self._bills, low, high):
            if wanted.matches(usage) and self.is_shown(usage):
                yield place, usage

    def is_shown(self, usage: Usage) -> bool:
        """Late bills appear when they are due by the clock, also while usage is paused."""
        if self._late_by is None or not one_in_ten("late", usage):
            return True
        return self._clock() >= max(usage.end, self._history.live_from) + self._late_by

    def _span(self, time: str) -> tuple[int, int]:
        """Where the bills of a whole year, month or day lie; each place begins with its time."""
        return (
            bisect_left(self._bills, time, key=_place),
            bisect_right(self._bills, f"{time}~", key=_place),
        )

    def _advance(self) -> None:
        records = self._history.of_account(ONOMONDO_ACCOUNT)
        for usage in records[self._taken :]:
            if usage.service == "data":
                insort(self._bills, (_text(usage), usage), key=_place)
        self._taken = len(records)


def _place(bill: tuple[str, Usage]) -> str:
    return bill[0]


def _text(usage: Usage) -> str:
    return f"{usage.start.isoformat(timespec='milliseconds')}@{sim_id(usage.sim)}@{bill_id(usage)}"
