"""SIMSY's usage: which records show, in which order, and how records and summaries look."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from connectors.simulators.fleet import Sim, seeded
from connectors.simulators.settings import SimsySettings
from connectors.simulators.simsy_accounts import SimsyAccount, make_id
from connectors.simulators.usage import Usage, UsageHistory

Grouping = Literal["daily", "monthly", "annual"]

CHARGED_IN = 1024
"""Bytes of the step to which a record's charged volume is rounded up."""

BUY_SHARE = Decimal("0.61")
"""What SIMSY pays for a record, as a share of what it charges for it."""

TADIG = {
    "262-01": "DEUD1",
    "262-02": "DEUD2",
    "208-01": "FRAF1",
    "208-10": "FRAF2",
    "234-15": "GBRVF",
    "234-30": "GBRME",
    "310-410": "USACG",
    "310-260": "USAW6",
    "440-10": "JPNDO",
    "232-01": "AUTPT",
}
"""The TADIG code under which SIMSY files the usage of each network."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A record under the timestamp that SIMSY gives it."""

    timestamp: datetime
    usage: Usage

    @property
    def charged(self) -> int:
        return charged_volume(self.usage)


def charged_volume(usage: Usage) -> int:
    """Bytes rounded up to the step, or messages as they are."""
    return usage.total if usage.service == "sms" else -(-usage.total // CHARGED_IN) * CHARGED_IN


class SimsyFeed:
    """The records that have been synced, which happens at fixed instants and, by fault, later for some."""

    def __init__(self, history: UsageHistory, settings: SimsySettings, faults: frozenset[str]) -> None:
        self._history = history
        self._settings = settings
        self._late = "simsy-late-rows" in faults
        self._shifting = "simsy-shifting-pages" in faults
        self._shown: dict[str, list[Listed]] = defaultdict(list)
        self._waiting: dict[str, list[Usage]] = defaultdict(list)
        self._taken: dict[str, int] = defaultdict(int)
        self._answers: dict[str, int] = defaultdict(int)
        self._held_until: dict[int, int] = {}

    def records(self, account: SimsyAccount, now: datetime) -> Sequence[Listed]:
        """Newest first, as each answer of `/usage/records` has them; calling it is what counts answers."""
        self._answers[account.name] += 1
        self._sync(account.name, now)
        order = self._answers[account.name] if self._shifting else 0
        return sorted(
            self._shown[account.name],
            key=lambda row: (row.timestamp, seeded(order, row.usage.id)),
            reverse=True,
        )

    def synced(self, account: SimsyAccount, now: datetime) -> Sequence[Listed]:
        """In no order."""
        self._sync(account.name, now)
        return self._shown[account.name]

    def _sync(self, account: str, now: datetime) -> None:
        usages = self._history.of_account(account)
        self._waiting[account] += usages[self._taken[account] :]
        self._taken[account] = len(usages)
        still = []
        for usage in self._waiting[account]:
            if self._synced_at(usage) <= now and not self._held(account, usage):
                self._shown[account].append(Listed(self._timestamp(usage), usage))
            else:
                still.append(usage)
        self._waiting[account] = still

    def _synced_at(self, usage: Usage) -> datetime:
        step = self._settings.sync_interval
        epoch = datetime.fromtimestamp(0, UTC)
        tick = epoch - (epoch - usage.end) // step * step
        late = self._late and _pick(usage, "late") % 10 == 0
        return tick + self._settings.late_by if late else tick

    def _held(self, account: str, usage: Usage) -> bool:
        """Every tenth record that is due shows one to three answers later, between a client's pages."""
        if not self._shifting or _pick(usage, "held") % 10:
            return False
        first = self._answers[account] + 1 + _pick(usage, "held") // 10 % 3
        return self._answers[account] < self._held_until.setdefault(usage.id, first)

    def _timestamp(self, usage: Usage) -> datetime:
        """Whole seconds; quarters of an hour where equal timestamps are wanted. Never another hour."""
        minute = usage.start.minute // 15 * 15
        if self._shifting:
            return usage.start.replace(minute=minute, second=0, microsecond=0)
        return usage.start.replace(microsecond=0)


def _pick(usage: Usage, purpose: str) -> int:
    return int.from_bytes(seeded("simsy", purpose, usage.id)[:4])


def record_row(account: SimsyAccount, row: Listed, profile: str) -> dict[str, Any]:
    """One record. The published server's database driver writes every number as text."""
    usage, data = row.usage, row.usage.service == "data"
    instance = account.instance_at(usage.sim, usage.start)
    number = str if profile == "worker" else int
    return {
        "id": make_id("record", usage.id),
        "iccid": usage.sim.canonical_iccid,
        "endpoint_name": usage.sim.name,
        "endpoint_description": None,
        "customer_name": account.title,
        "timestamp": text_of(row.timestamp),
        "usage_date": text_of(row.timestamp.replace(hour=0, minute=0, second=0)),
        "service_type": usage.service,
        "charge_type": None,
        "consumption": number(usage.total),
        "charged_consumption": number(row.charged),
        "uplink_bytes": number(usage.tx) if data else None,
        "downlink_bytes": number(usage.rx) if data else None,
        "bundle_name": instance.bundle.name if instance else None,
        "bundle_moniker": instance.bundle.moniker if instance else None,
        "status_moniker": None,
        "bundle_instance_id": instance.id if instance else None,
        "sequence": instance.sequence if instance else None,
        "sequence_max": instance.sequence_max if instance else None,
        "serving_operator_name": usage.network.operator,
        "serving_country_name": TADIG[usage.network.code],
        "buy_charge": f"{usage.cost * BUY_SHARE:f}",
        "buy_currency": "SEK",
        "sell_charge": f"{usage.cost:f}",
        "sell_currency": usage.currency,
    }


def summary_rows(rows: Iterable[Listed], grouping: Grouping, profile: str) -> list[dict[str, Any]]:
    """Totals of days, months or years, the oldest first; data and SMS together, as the server adds them."""
    periods: dict[str, list[Listed]] = defaultdict(list)
    length = {"daily": 10, "monthly": 7, "annual": 4}[grouping]
    for row in rows:
        periods[(row.timestamp.date().isoformat()[:length] + "-01-01")[:10]].append(row)
    if profile == "seed":
        return [
            {"date": date, "data_mb": data_mb(group), "records": len(group)}
            for date, group in sorted(periods.items())
        ]
    return [
        {"date": date, **summary_totals(group, total="", buy="buy_total", sell="sell_total")}
        for date, group in sorted(periods.items())
    ]


def summary_totals(rows: Sequence[Listed], *, total: str, buy: str, sell: str) -> dict[str, Any]:
    """The totals of the published server, whose names differ between a row and the summary above the rows."""
    cost = sum((row.usage.cost for row in rows), Decimal(0))
    return {
        f"{total}consumption": sum(row.usage.total for row in rows),
        "total_charged": sum(row.charged for row in rows),
        "total_bytes": sum(row.usage.total for row in rows if row.usage.service == "data"),
        buy: float(cost * BUY_SHARE),
        sell: float(cost),
        f"{total}records": len(rows),
    }


def data_mb(rows: Iterable[Listed]) -> float:
    return sum(row.usage.total for row in rows if row.usage.service == "data") / 1_000_000


def endpoint_row(account: SimsyAccount, sim: Sim, rows: Sequence[Listed], now: datetime) -> dict[str, Any]:
    """An endpoint with its usage of the last day, week, four weeks and year."""
    mine = [row for row in rows if row.usage.sim is sim]
    spans = {"24h": 1, "7d": 7, "28d": 28, "1y": 365}
    recent = {
        name: [row for row in mine if row.timestamp >= now - timedelta(days=days)]
        for name, days in spans.items()
    }
    times = [text_of(row.timestamp) for row in mine]
    return {
        "id": account.endpoint_id(sim),
        "endpoint_identifier": f"ep-{sim.number}",
        "iccid": sim.canonical_iccid,
        "endpoint_name": sim.name,
        "endpoint_type": "device",
        "endpoint_type_name": "Device",
        "status": "active",
        "endpoint_status_name": "Active",
        "network_status_name": "Attached",
        **{f"usage_rolling_{name}": sum(row.charged for row in group) for name, group in recent.items()},
        **{
            f"charge_rolling_{name}": float(sum(row.usage.cost for row in group))
            for name, group in recent.items()
        },
        "first_activity": min(times, default=None),
        "latest_activity": max(times, default=None),
    }


def text_of(instant: datetime) -> str:
    """ISO 8601 with milliseconds, as JavaScript writes a date."""
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03d}Z"
