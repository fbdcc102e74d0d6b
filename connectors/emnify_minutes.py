"""emnify's minutes: what its last hour tells of a SIM's day is counted in its minutes, the rest as the day.

A day's total stays what emnify says of the day: minutes are parts of it. Those that it does not have room for
yet, because emnify adds up days later than minutes, wait until it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from connectors.emnify_stats import DAY, MINUTE, MINUTE_NAME, Amount
from streams.usage import Service, UsageRecord
from streams.windows import window_start

_Of = tuple[str, Service, datetime]
"""A SIM by emnify's id, a service, and the day."""


class Minutes:
    """The minutes that are known of each SIM's days: about 300 bytes for each that has usage."""

    def __init__(self) -> None:
        self._known: defaultdict[_Of, dict[datetime, Amount]] = defaultdict(dict)

    def learn(self, sim_id: int, amounts: Iterable[Amount]) -> None:
        """Take what the last hour tells now; a minute without usage is kept only where it had some before."""
        for amount in amounts:
            known = self._known[_of(str(sim_id), amount)]
            if amount.total or amount.start in known:
                known[amount.start] = amount

    def recall(self, records: Iterable[UsageRecord]) -> None:
        """Take the minutes among what was published before."""
        for record in records:
            if record.identity.startswith(MINUTE_NAME) and not record.retracted:
                sim_id = record.identity.split(":")[-2]
                amount = Amount(record.start, record.service, record.total, record.rx, record.tx, MINUTE)
                self._known[_of(sim_id, amount)][amount.start] = amount

    def parts(self, sim_id: int, day: Amount) -> list[Amount]:
        """Part a day into the minutes that fit in it, in order of time, and the rest."""
        told, left = [], day.total
        for _, minute in sorted(self._of_day(sim_id, day.service, day.start).items()):
            if minute.total > left:
                break
            if minute.total:
                told.append(minute)
                left -= minute.total
        rx, tx = (_less(day, told, way) for way in ("rx", "tx"))
        return [*told, Amount(day.start, day.service, left, rx, tx)]

    def of(self, sim_id: int, service: Service, first: datetime, end: datetime) -> list[Amount]:
        """Return the known minutes of a SIM's days from `first` until before `end`."""
        days = [first + number * DAY for number in range((end - first) // DAY)]
        return [minute for day in days for minute in self._of_day(sim_id, service, day).values()]

    def forget_before(self, start: datetime) -> None:
        """Drop the days before."""
        for of in [of for of in self._known if of[2] < start]:
            del self._known[of]

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def _of_day(self, sim_id: int, service: Service, day: datetime) -> dict[datetime, Amount]:
        return self._known.get((str(sim_id), service, day), {})


def _of(sim_id: str, amount: Amount) -> _Of:
    return sim_id, amount.service, window_start(amount.start, "day")


def _less(day: Amount, told: Iterable[Amount], way: str) -> int | None:
    """Return what is left of a direction, or `None` where it is not known or does not add up."""
    whole, parts = getattr(day, way), [getattr(minute, way) for minute in told]
    if whole is None or None in parts or sum(parts) > whole:
        return None
    return int(whole - sum(parts))
