"""Finality: which hours of an account can no longer be expected to change, judged by coverage alone. Pure.

No clock decides, so a replay decides alike: an account's interval is final once the account is known to be
complete for so long behind it as its statements may come late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

import numpy as np

from streams.contexts import Contexts
from streams.coverage import Account, Covered, Interval, watermark
from streams.index import I64, U64, Bools
from streams.rollups import split

Settle = Callable[[str, str], timedelta]
"""How long after its end a covered window may still change, by the names of account and provider."""

_GROUP_SHIFT = np.uint64(32)


def final_parts(intervals: Iterable[Interval], settle: timedelta) -> tuple[Interval, ...]:
    """Return the parts of covered intervals (epoch seconds) that are final."""
    covered = tuple(intervals)
    latest = watermark(covered)
    until = 0 if latest is None else latest - int(settle.total_seconds())
    return tuple((low, min(high, until)) for low, high in covered if low < until)


class Finality:
    """What is final of each account, in the order of the events."""

    def __init__(self, contexts: Contexts, settle: Settle | None) -> None:
        self._contexts = contexts
        self._settle = settle
        self._parts: dict[str, dict[str, tuple[Interval, ...]]] = {}
        self._groups: dict[Account, list[int]] = {}
        self._until: U64 = np.zeros(0, np.uint64)
        """For each group of contexts the hour number below which hours of its account may be final."""
        self._first: U64 = np.zeros(0, np.uint64)
        """For each group of contexts the first one of its account."""
        self._latest = 0

    def note(self, account: Account, covered: Covered) -> None:
        """Note where an account is complete by now; without a rule of when it settles nothing is final."""
        if self._settle is None:
            return
        tenant, name = account
        self._parts.setdefault(tenant, {})[name] = self.parts(account, covered)
        self._learn()
        self._until[self._groups.get(account, [])] = self._bound(account)
        self._latest = max(self._latest, self._bound(account))

    def of(self, account: Account) -> tuple[Interval, ...]:
        """Return what is final of an account."""
        tenant, name = account
        return self._parts.get(tenant, {}).get(name, ())

    def parts(self, account: Account, covered: Covered) -> tuple[Interval, ...]:
        """Return what would be final of an account if this were covered."""
        if self._settle is None:
            return ()
        return final_parts(covered.intervals, self._settle(account[1], covered.provider))

    def until(self, account: Account, covered: Covered) -> int | None:
        """Return before when hours would be final if this were covered, `None` if no more than there are."""
        tenant, name = account
        parts = self.parts(account, covered)
        if whole_hours(parts) == whole_hours(self._parts.get(tenant, {}).get(name, ())):
            return None
        return parts[-1][1]

    def around(self, tenant: str, hour: int) -> dict[str, Interval]:
        """Return, by account of the tenant, the final interval that holds an hour; without it, it is not."""
        found = {}
        for account, parts in sorted(self._parts.get(tenant, {}).items()):
            for part in parts:
                if holds(part, hour):
                    found[account] = part
        return found

    def holds(self, keys: U64) -> Bools:
        """Return which cells lie in final hours of their account."""
        contexts, hours = split(keys)
        if not len(keys) or int(hours.min()) >= self._latest:
            return np.zeros(len(keys), np.bool_)
        self._learn()
        groups = self._contexts.groups(contexts)
        near: Bools = hours < self._until[groups]
        at = np.flatnonzero(near)
        if not len(at):
            return near
        # There may be gaps before the latest final hour.
        places, inverse = np.unique(
            groups[at].astype(np.uint64) << _GROUP_SHIFT | hours[at], return_inverse=True
        )
        final = np.array([self._is_final(place >> 32, place & 0xFFFFFFFF) for place in places.tolist()])
        near[at] = final[inverse]
        return near

    def accounts(self, contexts: I64) -> U64:
        """Return a number for each context's account, which `account_of` knows."""
        self._learn()
        found: U64 = self._first[self._contexts.groups(contexts)]
        return found

    def account_of(self, number: int) -> Account:
        """Return the tenant and account of a group of contexts, which is also a number of an account."""
        tenant, kind = self._contexts.group_list[number]
        return tenant, kind.account

    def codes(self, contexts: I64, hours: U64) -> U64:
        """Return account and hour of each cell in one number, which `place_of` knows."""
        return self.accounts(contexts) << _GROUP_SHIFT | hours.astype(np.uint64)

    def place_of(self, code: int) -> tuple[str, str, int]:
        """Return the tenant, the account and the hour number of a code."""
        return *self.account_of(code >> 32), code & 0xFFFFFFFF

    def _is_final(self, group: int, hour: int) -> bool:
        tenant, account = self.account_of(group)
        return any(holds(part, hour) for part in self._parts[tenant][account])

    def _learn(self) -> None:
        first, count = len(self._until), len(self._contexts.group_list)
        if first == count:
            return
        accounts = [self.account_of(group) for group in range(first, count)]
        for group, account in enumerate(accounts, first):
            self._groups.setdefault(account, []).append(group)
        bounds = np.array([self._bound(account) for account in accounts], np.uint64)
        firsts = np.array([self._groups[account][0] for account in accounts], np.uint64)
        self._until = np.append(self._until, bounds)
        self._first = np.append(self._first, firsts)

    def _bound(self, account: Account) -> int:
        tenant, name = account
        parts = self._parts.get(tenant, {}).get(name, ())
        return parts[-1][1] // 3600 if parts else 0


def whole_hours(parts: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the whole hours, by number, that intervals of epoch seconds hold."""
    hours = ((-(-low // 3600), high // 3600) for low, high in parts)
    return tuple((low, high) for low, high in hours if low < high)


def holds(part: Interval, hour: int) -> bool:
    """Whether an interval of epoch seconds holds a whole hour."""
    return part[0] <= hour * 3600 and (hour + 1) * 3600 <= part[1]
