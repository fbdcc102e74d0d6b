"""emnify's limits: of an address, of its logins, and a rate and a burst of each path.

The stand-in has one organisation and takes all that ask for one address. Its counts are the log that shows
whether a client kept to the limits.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.simulators.limits import RateLimit
from connectors.simulators.usage import Clock

WINDOW: Final = timedelta(minutes=5)
REQUESTS: Final = 2000
LOGINS: Final = 100

_RATES: Final = {
    "/sim/": ("/sim", 10, 5),
    "/sim/{id}/": ("/sim/[^/]+", 100, 50),
    "/sim/{id}/stats/": ("/sim/[^/]+/stats.*", 10, 5),
    "/stats/": ("/stats.*", 10, 5),
    "/organisation/{id}/stats/": ("/organisation/[^/]+/stats.*", 10, 5),
    "/endpoint/": ("/endpoint", 10, 5),
    "/endpoint/{id}/": ("/endpoint/(?!stats)[^/]+", 50, 25),
    "/endpoint/{id}/stats/*": ("/endpoint/[^/]+/stats.*", 100, 50),
    "/endpoint/stats/": ("/endpoint/stats.*", 100, 50),
}
"""Of each path as the documentation writes it: what it matches, requests a second, and burst."""


@dataclass(slots=True)
class Rate:
    """A bucket that holds a burst and fills by a rate."""

    per_s: int
    burst: int
    clock: Clock
    requests: int = 0
    refused: int = 0
    _left: float = 0.0
    _at: datetime | None = None

    def take(self) -> bool:
        """Count a request; whether it is within the limit."""
        now = self.clock()
        passed = self.burst if self._at is None else (now - self._at).total_seconds() * self.per_s
        self._left, self._at = min(float(self.burst), self._left + passed), now
        self.requests += 1
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True


class EmnifyLimits:
    """All limits of the one client."""

    def __init__(self, clock: Clock, *, by_path: bool) -> None:
        self._address = RateLimit(REQUESTS, clock, WINDOW)
        self._logins = RateLimit(LOGINS, clock, WINDOW)
        self._rates = {name: Rate(per_s, burst, clock) for name, (_, per_s, burst) in _RATES.items()}
        self._by_path = by_path

    def allow(self, path: str) -> bool:
        """Count a request; whether every limit that speaks of its path allows it."""
        allowed = self._address.take(1)
        if path.endswith("/authenticate"):
            return self._logins.take(1) and allowed
        below = re.sub("^.*?/api/v[12]", "", path).rstrip("/")
        for name, (pattern, _, _) in _RATES.items():
            if self._by_path and re.fullmatch(pattern, below):
                allowed = self._rates[name].take() and allowed
        return allowed

    def report(self) -> dict[str, Any]:
        """Requests, those that were too many, and of each path the same."""
        rates = {name: rate for name, rate in self._rates.items() if rate.requests}
        refused = self._address.refused + self._logins.refused + sum(rate.refused for rate in rates.values())
        return {
            "requests": self._address.requests,
            "refused": refused,
            "paths": {
                name: {"requests": rate.requests, "refused": rate.refused} for name, rate in rates.items()
            },
        }
