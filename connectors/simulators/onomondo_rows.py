"""Onomondo's JSON: usage rows, webhook events, SIMs and tags.

The seed names paths and parameters only. Fields of rows and events are inferred from what clients of the API
were seen to read; grouped rows and the body of `tag-total` are guesses.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from connectors.simulators.fleet import Network, Sim, seeded
from connectors.simulators.usage import Usage

RATS = ("2G", "3G", "4G")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a row writes what was seen written differently."""

    numeric_ids: bool = False

    def sim_id(self, sim: Sim) -> str | int:
        """Nine digits with leading zeros; as a number it loses them."""
        return sim.number if self.numeric_ids else sim_id(sim)


def sim_id(sim: Sim) -> str:
    return f"{sim.number:09d}"


def bill_id(usage: Usage) -> str:
    return str(UUID(bytes=seeded("bill", usage.id), version=4))


def usage_row(usage: Usage, shape: Shape) -> dict[str, Any]:
    """One row of `/usage`: an instant without zone, a total without direction, no money."""
    network = usage.network
    return {
        "time": f"{usage.start:%Y-%m-%d %H:%M:%S}",
        "bill_id": bill_id(usage),
        "sim_id": shape.sim_id(usage.sim),
        "iccid": usage.sim.iccid,
        "session_id": usage.session_id,
        "bytes": usage.total,
        "country_code": network.country.lower(),
        "network_type": _rat(usage),
        "network": {"mcc": network.mcc, "mnc": network.mnc},
    }


def hourly_rows(rows: Iterable[Usage], shape: Shape) -> list[dict[str, Any]]:
    """`group=hours`: one row an hour, SIM and network, without the ids of single bills."""
    sums: defaultdict[tuple[datetime, str], int] = defaultdict(int)
    first: dict[tuple[datetime, str], Usage] = {}
    for usage in rows:
        hour = usage.start.replace(minute=0, second=0, microsecond=0)
        key = (hour, f"{sim_id(usage.sim)}:{usage.network.code}")
        sums[key] += usage.total
        first.setdefault(key, usage)
    grouped = []
    for key in sorted(sums):
        row = usage_row(first[key], shape)
        del row["bill_id"], row["session_id"]
        grouped.append(row | {"time": f"{key[0]:%Y-%m-%d %H:%M:%S}", "bytes": sums[key]})
    return grouped


def event(usage: Usage, shape: Shape) -> dict[str, Any]:
    """One webhook event: `usage` with its bytes, or `usage-sms` for one message."""
    common = {
        "sim_id": shape.sim_id(usage.sim),
        "iccid": usage.sim.iccid,
        "sim_label": usage.sim.name,
        "time": f"{usage.start:%Y-%m-%dT%H:%M:%S}.{usage.start.microsecond // 1000:03d}Z",
        "network_type": _rat(usage),
        "network": _named_network(usage.network),
    }
    if usage.service == "sms":
        return {"type": "usage-sms", **common}
    return {
        "type": "usage",
        **common,
        "bill_id": bill_id(usage),
        "session_id": usage.session_id,
        "bytes": usage.total,
    }


def tags_of(sim: Sim, now: datetime) -> list[dict[str, Any]]:
    """Its tenant and its fleet, as they are now."""
    return [tag(name) for name in (sim.tenant.name, sim.fleet_at(now))]


def tag(name: str) -> dict[str, Any]:
    identifier = str(UUID(bytes=seeded("tag", name), version=4))
    return {"id": identifier, "name": name, "color": None, "can_write": True}


def sim_item(sim: Sim, now: datetime, used: int) -> dict[str, Any]:
    """A SIM of `/sims`; `used` is its bytes of this month."""
    return {
        "id": sim_id(sim),
        "iccid": sim.iccid,
        "msisdn": None,
        "label": sim.name,
        "network_whitelist": None,
        "imei_lock": None,
        "imsi": None,
        "connector": None,
        "activated": True,
        "online": True,
        "network": _named_network(sim.networks[0]),
        "usage": used,
        "tags": tags_of(sim, now),
        "data_limit": {"used": used, "total": 0, "type": "monthly", "period": f"{now:%Y%m}"},
        "technologies": {"sms": True, "2g_3g": True, "4g": True},
    }


def _named_network(network: Network) -> dict[str, str]:
    return {
        "name": network.operator,
        "country": network.country_name,
        "country_code": network.country,
        "mcc": network.mcc,
        "mnc": network.mnc,
    }


def _rat(usage: Usage) -> str:
    return RATS[usage.sim.number % len(RATS)]
