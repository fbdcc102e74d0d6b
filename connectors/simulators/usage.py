"""Usage of the fleet, computed rather than recorded: a pure function of seed, SIM and time slot.

Time is cut into slots. In each slot a SIM has at most one usage record, which *ends* in that slot and may
have started before it, so that some records straddle an hour. A record is visible from its end on and never
changes.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Literal
from uuid import UUID

from connectors.simulators.fleet import Network, Sim, seeded

Clock = Callable[[], datetime]

# emnify closes a record of an open session every 45 s (Data Streamer documentation).
LONGEST_RECORD_SECONDS = 45
# Sparse enough for a quick start, dense enough that every SIM shows up in most hours: about 45 records a day.
HISTORY_SLOT_SECONDS = 600
HISTORY_CHANCE = 0.31
LIVE_SLOT_SECONDS = 5
ROAMING_BLOCK_SECONDS = 3 * 3600
BYTES_PER_MB = 1_000_000
SMS_PRICE = Decimal("0.0400")
CURRENCIES = {"emnify": "EUR", "kore": "USD", "onomondo": "EUR", "simsy": "GBP"}


@dataclass(frozen=True, slots=True)
class Usage:
    """One usage record. `rx` (towards the device) and `tx` are bytes, or messages for SMS.

    An SMS keeps emnify's Data Streamer convention, which is the other way round: a message from the device
    counts as `rx`.
    """

    id: int
    sim: Sim
    network: Network
    service: Literal["data", "sms"]
    start: datetime
    end: datetime
    rx: int
    tx: int
    cost: Decimal
    currency: str
    session_id: str | None

    @property
    def total(self) -> int:
        return self.rx + self.tx


@dataclass(frozen=True, slots=True)
class Slot:
    """A span of time, in seconds since the epoch, and each SIM's chance of a record ending in it."""

    start: int
    seconds: int
    chance: float


def draw(seed: int, sim: Sim, slot: Slot) -> Usage | None:
    """The usage record of `sim` that ends in `slot`, if there is one."""
    digest = seeded(seed, sim.number, slot.start)
    if int.from_bytes(digest[:8]) / 2**64 >= slot.chance:
        return None
    random = Random(int.from_bytes(digest))
    end = datetime.fromtimestamp(slot.start, UTC) + timedelta(
        milliseconds=random.randrange(slot.seconds * 1000)
    )
    lasted = random.randint(1000, min(LONGEST_RECORD_SECONDS, slot.seconds) * 1000)
    start = end - timedelta(milliseconds=lasted)
    if random.random() < 0.5:
        start = start.replace(microsecond=0)
    network = _network(seed, sim, slot, random)
    is_sms = _has_sms(sim, slot) and random.random() < 0.1
    if is_sms:
        rx, tx = random.choice(((1, 0), (0, 1)))
        cost = SMS_PRICE
        if sim.provider == "onomondo":
            # Known by SIM and time alone, and told twice: no two may share both.
            start = end
    else:
        rx, tx = _volume(random)
        cost = network.price_per_mb * (rx + tx) / BYTES_PER_MB
    return Usage(
        # Unique by construction. Every second SIM sets bit 62, beyond what a double can hold exactly.
        id=(sim.number % 2) << 62 | sim.number << 32 | slot.start,
        sim=sim,
        network=network,
        service="sms" if is_sms else "data",
        start=start,
        end=end,
        rx=rx,
        tx=tx,
        cost=cost,
        currency=CURRENCIES[sim.provider],
        session_id=None if is_sms else _session(seed, sim, network, slot),
    )


def _has_sms(sim: Sim, slot: Slot) -> bool:
    """Onomondo tells SMS by webhook alone, and a webhook tells nothing of the past."""
    live = slot.seconds == LIVE_SLOT_SECONDS
    return sim.provider in {"emnify", "simsy"} or (sim.provider == "onomondo" and live)


def _network(seed: int, sim: Sim, slot: Slot, random: Random) -> Network:
    """Mostly the network of the current three hours, now and then another one that the SIM roams on."""
    block = seeded(seed, "roaming", sim.number, slot.start // ROAMING_BLOCK_SECONDS)
    return (
        sim.networks[block[0] % len(sim.networks)] if random.random() < 0.9 else random.choice(sim.networks)
    )


def _volume(random: Random) -> tuple[int, int]:
    """Received and sent bytes, spread over six orders of magnitude; one direction is sometimes silent."""
    total = int(10 ** random.uniform(1, 7))
    share = random.choice((0.0, 1.0)) if random.random() < 0.05 else random.uniform(0.1, 0.9)
    rx = int(total * share)
    return rx, total - rx


def _session(seed: int, sim: Sim, network: Network, slot: Slot) -> str:
    parts = ("session", sim.number, network.code, slot.start // ROAMING_BLOCK_SECONDS)
    return str(UUID(bytes=seeded(seed, *parts), version=4))


def utc_text(instant: datetime) -> str:
    """ISO 8601 in UTC, with milliseconds only where there are any: emnify shows both within one record."""
    milliseconds = instant.microsecond // 1000
    return f"{instant:%Y-%m-%dT%H:%M:%S}" + (f".{milliseconds:03d}Z" if milliseconds else "Z")


def _milliseconds(instant: datetime) -> int:
    return (instant - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


class UsageHistory:
    """All usage up to now, growing as time passes, with a switch that freezes it.

    History reaches from `history_hours` before `live_from` and is sparse. From `live_from` on (rounded down
    to a history slot) the whole fleet yields about `live_records_per_second`. A process restarted with the
    same seed, size and `live_from` computes the same usage, apart from pauses, which are not kept.
    """

    def __init__(
        self,
        seed: int,
        sims: Sequence[Sim],
        *,
        live_from: datetime,
        history_hours: int,
        live_records_per_second: float,
        clock: Clock,
    ) -> None:
        self._seed = seed
        self._sims = sims
        self._clock = clock
        live_slot = int(live_from.timestamp()) // HISTORY_SLOT_SECONDS * HISTORY_SLOT_SECONDS
        self.live_from = datetime.fromtimestamp(live_slot, UTC)
        self.history_from = datetime.fromtimestamp((live_slot - history_hours * 3600) // 3600 * 3600, UTC)
        per_slot = live_records_per_second * LIVE_SLOT_SECONDS / len(sims)
        # Going live never makes a fleet quieter than its history, however large it is.
        quietest = HISTORY_CHANCE * LIVE_SLOT_SECONDS / HISTORY_SLOT_SECONDS
        self._live_chance = min(1.0, max(per_slot, quietest))
        self._next_slot = int(self.history_from.timestamp())
        self._pending: list[tuple[datetime, int, Usage]] = []
        self._records: dict[str, list[Usage]] = defaultdict(list)
        self._pauses: list[tuple[datetime, datetime]] = []
        self._paused_at: datetime | None = None
        self._reached = self.history_from

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    def as_of(self) -> datetime:
        """The instant up to which usage is visible: now, or the instant of the pause. Never moves back."""
        now = self._clock() if self._paused_at is None else self._paused_at
        self._reached = max(self._reached, now.replace(microsecond=now.microsecond // 1000 * 1000))
        return self._reached

    def of_account(self, account: str) -> Sequence[Usage]:
        """Visible usage of one account, in the order of its end. The sequence only ever grows at its end."""
        self._advance()
        return self._records[account]

    def everything(self) -> Iterable[Usage]:
        self._advance()
        return (usage for records in self._records.values() for usage in records)

    def pause(self) -> datetime:
        """Freezes the usage at this instant and returns it; usage that has not ended by then stays away."""
        if self._paused_at is None:
            self._advance()
            self._paused_at = self.as_of()
        return self._paused_at

    def resume(self) -> datetime:
        """Lets time pass again; whatever overlaps the span of the pause never happened."""
        if self._paused_at is not None:
            paused_at, self._paused_at = self._paused_at, None
            self._pauses.append((paused_at, self.as_of()))
        return self.as_of()

    def _advance(self) -> None:
        reached = self.as_of()
        while self._next_slot * 1000 <= _milliseconds(reached):
            slot = self._slot_at(self._next_slot)
            for sim in self._sims:
                usage = draw(self._seed, sim, slot)
                if usage is not None and usage.start >= self.history_from:
                    heapq.heappush(self._pending, (usage.end, usage.id, usage))
            self._next_slot += slot.seconds
        while self._pending and self._pending[0][0] <= reached:
            usage = heapq.heappop(self._pending)[2]
            if not any(usage.start < end and usage.end > start for start, end in self._pauses):
                self._records[usage.sim.account].append(usage)

    def _slot_at(self, start: int) -> Slot:
        if start < self.live_from.timestamp():
            return Slot(start, HISTORY_SLOT_SECONDS, HISTORY_CHANCE)
        return Slot(start, LIVE_SLOT_SECONDS, self._live_chance)
