"""Limits: how many requests a provider allows, as it documents them and as its answers tell them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, Self

BURST_SHARE: Final = 5
"""One of so many requests of a window may come at once; the others are spread over it."""

UNDER_WAY_S: Final = 5.0
"""Requests of so many seconds may arrive late and fall into the provider's next window."""

_EPOCH_S: Final = 1_000_000_000.0
"""From here on a reset is an instant, below it a duration: providers write both under one name."""

_PART = re.compile(r"(?:^|[;,\s])(r|t|remaining|reset)\s*=\s*(\d{1,12})")


class Scope(StrEnum):
    """Whose requests count together."""

    ACCOUNT = "account"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket of `capacity` requests that fills by `per_s` a second; each request takes its cost from it."""

    name: str
    capacity: float
    per_s: float
    scope: Scope = Scope.ACCOUNT
    path: str = ""
    """Expression that the request's path must match somewhere; every path matches the empty one."""
    costs: Mapping[str, int] | None = None
    """Requests that one to a path (an expression as above) counts for, where not one."""
    stated: bool = False
    """Whether it is this limit that the provider's headers speak of."""

    @classmethod
    def window(
        cls,
        name: str,
        requests: int,
        seconds: float,
        scope: Scope = Scope.ACCOUNT,
        path: str = "",
        costs: Mapping[str, int] | None = None,
        *,
        stated: bool = False,
    ) -> Self:
        """Allow at most so many requests in any span of so many seconds, wherever their windows begin."""
        capacity = max(1.0, requests // BURST_SHARE)
        per_s = (requests - capacity) / (seconds + min(UNDER_WAY_S, seconds / 10))
        return cls(name, capacity, per_s, scope, path, costs, stated)

    @classmethod
    def rate(cls, name: str, per_s: float, burst: int, *, path: str) -> Self:
        """Allow a rate and a burst, less a tenth, as requests may arrive closer together than they left."""
        return cls(name, burst * 0.9, per_s * 0.9, path=path)

    def cost(self, path: str) -> int:
        """Return what a request to this path counts for, 0 where the limit does not speak of it."""
        if not re.search(self.path, path):
            return 0
        return next((cost for part, cost in (self.costs or {}).items() if re.search(part, path)), 1)


@dataclass(frozen=True, slots=True)
class Stated:
    """What an answer says of its limit: so many requests are left for so many seconds."""

    remaining: int
    reset_s: float


def stated(headers: Mapping[str, str], now: datetime, *, refused: bool = False) -> Stated | None:
    """Read `X-RateLimit-*`, `RateLimit-*` or the IETF's `RateLimit`; `None` where none can be read.

    A 429 (`refused`) that tells its reset alone leaves nothing until then.

    A reset is seconds from now, or an instant in epoch seconds (Onomondo and SIMSY), which is compared with
    the answer's own `Date` so that our clock does not matter. Bounded by a day.
    """
    found = dict(_PART.findall(headers.get("RateLimit", "")))
    remaining = found.get("r", found.get("remaining"))
    reset = found.get("t", found.get("reset"))
    for prefix in ("X-RateLimit-", "RateLimit-"):
        remaining = remaining or headers.get(prefix + "Remaining")
        reset = reset or headers.get(prefix + "Reset")
    left, seconds = _number(remaining or ("0" if refused else None)), _number(reset)
    if left is None or seconds is None:
        return None
    if seconds >= _EPOCH_S:
        seconds -= _said_at(headers, now)
    return Stated(int(left), min(max(0.0, seconds), 86_400.0))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Read `Retry-After`, which is seconds or an HTTP date; `None` where absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86_400))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (aware - now).total_seconds()), 86_400.0)


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,12}(\.\d{1,6})?\s*", text, re.ASCII):
        return None
    return float(text)


def _said_at(headers: Mapping[str, str], now: datetime) -> float:
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except ValueError:
        return now.timestamp()
