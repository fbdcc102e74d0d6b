"""emnify's statistics of SIMs, endpoints and organisations, over the same usage as the Data Streamer's.

Endpoints and organisations have volumes as text, SIMs as numbers; months without traffic are absent; an
organisation's days end with a summary. A direction of SMS is the other way round than in the stream.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import orjson

from connectors.simulators.emnify_records import EURO, megabytes
from connectors.simulators.usage import Usage, utc_text

DAY: Final = timedelta(days=1)
TYPES: Final = {
    "data": {"description": "Data", "unit": "MB", "id": 5},
    "sms": {"description": "SMS", "unit": "SMS", "id": 6},
}


@dataclass(slots=True)
class _Sum:
    total: int = 0
    rx: int = 0
    tx: int = 0

    def add(self, usage: Usage) -> None:
        received, sent = (usage.rx, usage.tx) if usage.service == "data" else (usage.tx, usage.rx)
        self.total += usage.total
        self.rx += received
        self.tx += sent


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose statistics are asked for, and how they are written."""

    id_name: str
    id: int
    as_text: bool

    def volumes(self, service: str, found: _Sum) -> dict[str, Any]:
        """The volumes of a block; a float would have artefacts."""
        named = {"volume": found.total, "volume_tx": found.tx, "volume_rx": found.rx}
        written = {
            name: megabytes(value) if service == "data" else str(value) for name, value in named.items()
        }
        if self.as_text:
            return {name: text if "." in text else f"{text}.000000" for name, text in written.items()}
        return {name: orjson.Fragment(text) for name, text in written.items()}


def daily(usages: Iterable[Usage], subject: Subject, first: date, last: date) -> list[dict[str, Any]]:
    """Both days included; a day without usage is absent."""
    days: defaultdict[date, dict[str, _Sum]] = defaultdict(dict)
    for usage in usages:
        if first <= usage.start.date() <= last:
            days[usage.start.date()].setdefault(usage.service, _Sum()).add(usage)
    return [{"date": day.isoformat(), **_blocks(days[day], subject)} for day in sorted(days)]


def with_summary(
    days: list[dict[str, Any]], usages: Iterable[Usage], subject: Subject
) -> list[dict[str, Any]]:
    """An organisation's days, and behind them a row that must not be added to them."""
    wanted = {row["date"] for row in days}
    sums: dict[str, _Sum] = {}
    for usage in usages:
        if usage.start.date().isoformat() in wanted:
            sums.setdefault(usage.service, _Sum()).add(usage)
    return [*days, {"date": "TOTAL", **_blocks(sums, subject)}]


def stats(usages: Iterable[Usage], subject: Subject, now: datetime) -> dict[str, Any]:
    """Last and current month as far as they have traffic, and the last hour by minute."""
    current = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    months = {"last_month": (current - DAY).replace(day=1), "current_month": current}
    sums: dict[str, dict[str, _Sum]] = {}
    minutes: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)
    for usage in usages:
        for name, month in months.items():
            if (usage.start.year, usage.start.month) == (month.year, month.month):
                sums.setdefault(name, {}).setdefault(usage.service, _Sum()).add(usage)
        if now - timedelta(minutes=60) <= usage.start < now:
            minutes[usage.service, f"{usage.start:%H:%M}"].add(usage)
    body: dict[str, Any] = {
        name: {
            service: _month(subject, months[name], service, found, now)
            for service, found in sums[name].items()
        }
        for name in months
        if name in sums
    }
    labels = [f"{now - timedelta(minutes=60 - number):%H:%M}" for number in range(60)]
    body["last_hour"] = {
        service: {
            way: [[label, _minute(minutes, service, label, way)] for label in labels] for way in ("rx", "tx")
        }
        for service in TYPES
    }
    return body


def _blocks(sums: Mapping[str, _Sum], subject: Subject) -> dict[str, Any]:
    return {
        service: {
            **subject.volumes(service, found),
            "cost": 0,
            "traffic_type": TYPES[service],
            "currency": EURO,
        }
        for service, found in sums.items()
    }


def _month(subject: Subject, month: datetime, service: str, found: _Sum, now: datetime) -> dict[str, Any]:
    kind = TYPES[service]["id"]
    return {
        subject.id_name: subject.id,
        "month": f"{month.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000Z",
        **subject.volumes(service, found),
        "traffic_type_id": kind,
        "last_updated": utc_text(now),
        "cost": 0,
        "currency_id": EURO["id"],
        "id": int(f"{subject.id}{month:%Y%m}{kind}"),
        "traffic_type": TYPES[service],
        "currency": EURO,
    }


def _minute(minutes: Mapping[tuple[str, str], _Sum], service: str, label: str, way: str) -> Any:
    found = minutes.get((service, label))
    value = 0 if found is None else getattr(found, way)
    return orjson.Fragment(megabytes(value)) if service == "data" else value
