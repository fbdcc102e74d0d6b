"""UsageRecords: an account's usage, filtered, cut into periods and grouped as the request asks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, cast, get_args

from starlette.datastructures import QueryParams

from connectors.simulators.fleet import Network, Sim
from connectors.simulators.kore_accounts import NETWORKS_BY_SID, KoreAccount, network_sid
from connectors.simulators.kore_errors import INVALID_VALUE, KoreError
from connectors.simulators.kore_ranges import (
    DAY,
    HOUR,
    Granularity,
    effective_range,
    parse_instant,
    round_down,
)
from connectors.simulators.usage import Usage, utc_text

Group = Literal["sim", "fleet", "network", "isoCountry"]

PARAMETERS = {"Sim", "Fleet", "Network", "IsoCountry", "Group", "Granularity", "StartTime", "EndTime"}


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A request that has passed every rule; `start` and `end` are what is answered for."""

    start: datetime
    end: datetime
    granularity: Granularity
    group: Group | None
    sim: Sim | None
    fleet: str | None
    network: Network | None
    country: str | None

    @property
    def filtered(self) -> list[str]:
        """The fields of a row that the request itself names."""
        given = {"sim_sid": self.sim, "fleet_sid": self.fleet, "network_sid": self.network}
        return [name for name, value in given.items() if value is not None]


@dataclass(slots=True)
class UsageRow:
    """Totals of one period and group, in bytes. `billed` is null until its first billing event arrives."""

    start: datetime
    end: datetime
    group: str
    upload: int = 0
    download: int = 0
    billed: Decimal | None = None
    unit: str | None = None


def parse_query(params: QueryParams, account: KoreAccount, now: datetime) -> UsageQuery:
    granularity = cast("Granularity", _choice(params, "Granularity", get_args(Granularity)) or "all")
    group = cast("Group | None", _choice(params, "Group", get_args(Group)))
    sim = fleet = network = None
    if (wanted := params.get("Sim")) is not None and (sim := account.find_sim(wanted)) is None:
        raise KoreError(
            f"Sim: {wanted!r} is neither SID nor unique name of a Sim of this account", INVALID_VALUE
        )
    if (wanted := params.get("Fleet")) is not None and (fleet := account.find_fleet(wanted)) is None:
        raise KoreError(f"Fleet: {wanted!r} is neither SID nor unique name of a Fleet here", INVALID_VALUE)
    if (wanted := params.get("Network")) is not None and (network := NETWORKS_BY_SID.get(wanted)) is None:
        raise KoreError(f"Network: {wanted!r} is not the SID of a Network", INVALID_VALUE)
    country = params.get("IsoCountry")
    if country is not None and not (len(country) == 2 and country.isascii() and country.isupper()):
        raise KoreError(f"IsoCountry: {country!r} is no ISO alpha-2 code", INVALID_VALUE)
    start, end = effective_range(
        parse_instant("StartTime", params["StartTime"]) if "StartTime" in params else None,
        parse_instant("EndTime", params["EndTime"]) if "EndTime" in params else None,
        now=now,
        granularity=granularity,
        single_sim=sim is not None,
        by_sim=group == "sim",
        legacy=account.client.legacy_alignment,
    )
    return UsageQuery(start, end, granularity, group, sim, fleet, network, country)


def billed_at(usage: Usage, delay: timedelta) -> datetime:
    """Return when a usage's money is told: `delay` after its end, or after that of its hour if it is earlier.

    Usage is filed under the hour of its start, and a period's money is whole a day after its end (seed).
    """
    return min(usage.end, round_down(usage.start, HOUR) + HOUR) + delay


def usage_rows(
    query: UsageQuery,
    account: KoreAccount,
    records: Iterable[Usage],
    *,
    now: datetime,
    as_of: datetime,
    billing_delay: timedelta,
) -> list[UsageRow]:
    """Newest first. Usage is filed under its start.

    Grouped rows exist only where usage occurred; ungrouped there is one row for each period that has begun,
    with zeros if need be ("one record for each UTC hour").
    """
    rows: dict[tuple[datetime, str], UsageRow] = {}
    if query.group is None:
        for start, end in _periods(query, now):
            rows[start, ""] = UsageRow(start, end, "")
    for usage in records:
        if not _matches(usage, query):
            continue
        start, end = _period(usage.start, query)
        group = _group_value(usage, query.group, account)
        row = rows.setdefault((start, group), UsageRow(start, end, group))
        row.upload += usage.tx
        row.download += usage.rx
        if billed_at(usage, billing_delay) <= as_of:
            row.billed = (row.billed or Decimal(0)) + usage.cost
            row.unit = usage.currency
    by_group = sorted(rows.values(), key=lambda row: row.group)
    return sorted(by_group, key=lambda row: row.start, reverse=True)


def row_key(row: UsageRow, query: UsageQuery) -> str:
    """What tells a row from the others of the same query, even where its period follows the clock."""
    return row.group if query.granularity == "all" else f"{row.start.timestamp():.0f}.{row.group}"


def row_item(row: UsageRow, query: UsageQuery, account: KoreAccount) -> dict[str, Any]:
    """The JSON of one UsageRecord: dimensions are null unless filtered or grouped by, money is a string."""
    dimensions = {
        "sim": account.sim_sid(query.sim) if query.sim else None,
        "network": network_sid(query.network) if query.network else None,
        "fleet": account.fleet_sid(query.fleet) if query.fleet else None,
        "isoCountry": query.country,
    }
    if query.group is not None:
        dimensions[query.group] = row.group
    return {
        "account_sid": account.sid,
        "sim_sid": dimensions["sim"],
        "network_sid": dimensions["network"],
        "fleet_sid": dimensions["fleet"],
        "iso_country": dimensions["isoCountry"],
        "period": {"start_time": utc_text(row.start), "end_time": utc_text(row.end)},
        "data_upload": row.upload,
        "data_download": row.download,
        "data_total": row.upload + row.download,
        "data_total_billed": "0" if row.billed is None else f"{row.billed.normalize():f}",
        "billed_unit": row.unit,
    }


def _choice(params: QueryParams, name: str, choices: tuple[str, ...]) -> str | None:
    value = params.get(name)
    if value is not None and value not in choices:
        raise KoreError(f"{name}: {value!r} is none of {', '.join(choices)}", INVALID_VALUE)
    return value


def _periods(query: UsageQuery, now: datetime) -> Iterable[tuple[datetime, datetime]]:
    start = query.start
    while start < query.end and (start <= now or query.granularity == "all"):
        period = _period(start, query)
        yield period
        start = period[1]


def _period(instant: datetime, query: UsageQuery) -> tuple[datetime, datetime]:
    if query.granularity == "all":
        return query.start, query.end
    step = DAY if query.granularity == "day" else HOUR
    start = round_down(instant, step)
    return start, start + step


def _matches(usage: Usage, query: UsageQuery) -> bool:
    return (
        query.start <= usage.start < query.end
        and (query.sim is None or usage.sim is query.sim)
        and (query.fleet is None or usage.sim.fleet_at(usage.start) == query.fleet)
        and (query.network is None or usage.network is query.network)
        and (query.country is None or usage.network.country == query.country)
    )


def _group_value(usage: Usage, group: Group | None, account: KoreAccount) -> str:
    match group:
        case None:
            return ""
        case "sim":
            return account.sim_sid(usage.sim)
        case "fleet":
            return account.fleet_sid(usage.sim.fleet_at(usage.start))
        case "network":
            return network_sid(usage.network)
        case "isoCountry":
            return usage.network.country
