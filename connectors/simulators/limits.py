"""A provider's rate limit: so many requests of a client in a window that the first one opens."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors.simulators.usage import Clock

WINDOW = timedelta(minutes=1)


@dataclass(slots=True)
class RateLimit:
    """One client's counter, and the log that shows whether a client kept to the limit."""

    limit: int
    clock: Clock
    window: timedelta = WINDOW
    requests: int = 0
    refused: int = 0
    busiest: int = 0
    """The highest cost of any window."""
    _opened: datetime | None = None
    _used: int = 0

    def take(self, cost: int) -> bool:
        """Count a request; whether it is within the limit."""
        now = self.clock()
        if self._opened is None or now >= self._opened + self.window:
            self._opened, self._used = now, 0
        self.requests += 1
        self._used += cost
        self.busiest = max(self.busiest, self._used)
        allowed = self._used <= self.limit
        self.refused += not allowed
        return allowed

    def headers(self) -> dict[str, str]:
        """The three headers of every answer; the reset is in epoch seconds."""
        closes = (self._opened or self.clock()) + self.window
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self._used)),
            "X-RateLimit-Reset": str(-int(-closes.timestamp() // 1)),
        }
