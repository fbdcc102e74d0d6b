"""How much is done, and the order in which a seed wants it done."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Form:
    """How much is done."""

    records: int
    kills: int
    early_kills: int
    suspensions: int
    rebalances: int
    flushes: int
    redis_restarts: int
    stale_restarts: int
    broker_kills: int

    def plan(self, chance: random.Random, *, broker: bool) -> list[str]:
        """Return the actions in the seed's order.

        A refill heals what was wrong in Redis, and hides it from the verdict. So what a fill must clear away
        comes behind whatever empties Redis, and the last kills and suspensions come behind that.
        """
        late_kills, late_suspensions = self.kills // 2, self.suspensions // 2
        early = {
            "kill a worker": self.kills - late_kills,
            "kill a worker, then its successor": self.early_kills,
            "suspend a worker": self.suspensions - late_suspensions,
            "add a worker for a while": self.rebalances,
            "flush Redis": self.flushes,
            "kill Redis": self.redis_restarts,
            "kill Redis, start it with old content": self.stale_restarts - 1,
            "kill the broker": self.broker_kills if broker else 0,
        }
        first = [action for action, count in early.items() for _ in range(count)]
        last = ["kill a worker"] * late_kills + ["suspend a worker"] * late_suspensions
        chance.shuffle(first)
        chance.shuffle(last)
        return [*first, "kill Redis, start it with old content", *last]


SHORT: Final = Form(
    records=210_000,
    kills=8,
    early_kills=3,
    suspensions=2,
    rebalances=1,
    flushes=1,
    redis_restarts=1,
    stale_restarts=1,
    broker_kills=1,
)
LONG: Final = Form(
    records=1_000_000,
    kills=34,
    early_kills=9,
    suspensions=6,
    rebalances=4,
    flushes=4,
    redis_restarts=3,
    stale_restarts=3,
    broker_kills=5,
)
