"""Ground truth: sums of all usage generated so far, taken from the generator and not from any HTTP answer."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from connectors.simulators.kore_accounts import make_sid
from connectors.simulators.kore_usage import billed_at
from connectors.simulators.simsy_usage import charged_volume
from connectors.simulators.usage import Usage, UsageHistory

CellKey = tuple[str, str, str, datetime, str, str, str, str, str]


@dataclass(slots=True)
class _Sum:
    rx: int = 0
    tx: int = 0
    undirected: int = 0
    """What its provider tells as a total only."""
    billed: int | None = None
    """Bytes after the provider's rounding, which SIMSY alone tells."""
    records: int = 0
    cost: Decimal | None = None
    currency: str | None = None
    cost_status: str = "complete"


def ground_truth(history: UsageHistory, kore_billing_delay: timedelta) -> dict[str, Any]:
    """One cell per hour of the usage's *start*, SIM, network, service and KORE fleet; bytes or messages.

    KORE states totals per cell, so `records` is 1 there. Its money is null until the first usage of the cell
    is billed, and `cost_status` stays `pending` until all of it is. Onomondo tells neither directions nor
    money.
    """
    as_of = history.as_of()
    cells: dict[CellKey, _Sum] = {}
    for usage in history.everything():
        cell = cells.setdefault(_key(usage), _Sum())
        cell.records = 1 if usage.sim.provider == "kore" else cell.records + 1
        if usage.sim.provider == "onomondo":
            cell.undirected += usage.total
            cell.cost_status = "unknown"
            continue
        if usage.sim.provider == "simsy" and usage.service == "data":
            cell.billed = (cell.billed or 0) + charged_volume(usage)
        cell.rx += usage.rx
        cell.tx += usage.tx
        if usage.sim.provider == "kore" and billed_at(usage, kore_billing_delay) > as_of:
            cell.cost_status = "pending"
        else:
            cell.cost = (cell.cost or Decimal(0)) + usage.cost
            cell.currency = usage.currency
    return {"as_of": _instant(as_of), "cells": [_cell(key, cells[key]) for key in sorted(cells)]}


def _key(usage: Usage) -> CellKey:
    sim = usage.sim
    return (
        sim.tenant.name,
        sim.provider,
        sim.account,
        usage.start.replace(minute=0, second=0, microsecond=0),
        sim.canonical_iccid,
        usage.network.country,
        usage.network.code,
        usage.service,
        make_sid("HF", sim.fleet_at(usage.start)) if sim.provider == "kore" else "",
    )


def _cell(key: CellKey, total: _Sum) -> dict[str, Any]:
    tenant, provider, account, hour, sim, country, network, service, fleet = key
    return {
        "tenant": tenant,
        "provider": provider,
        "account": account,
        "hour": _instant(hour),
        "sim": sim,
        "country": country,
        "network": network,
        "service": service,
        "fleet": fleet or None,
        "rx": total.rx,
        "tx": total.tx,
        "total": total.rx + total.tx + total.undirected,
        "billed": total.billed,
        "records": total.records,
        "cost": None if total.cost is None else f"{total.cost.normalize():f}",
        "currency": total.currency,
        "cost_status": total.cost_status,
    }


def _instant(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
