"""emnify's JSON: the Data Streamer's usage record and the SIM of `GET /api/v1/sim`.

Volumes and money are written from exact decimal text, because a float has artefacts that emnify's
`Decimal(14,6)` and `Decimal(14,10)` numbers do not have.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from connectors.simulators.fleet import NETWORKS, Sim
from connectors.simulators.usage import BYTES_PER_MB, Usage, utc_text

_TRAFFIC_TYPES = {"data": {"id": 5, "description": "Data"}, "sms": {"id": 6, "description": "SMS"}}
EURO = {"id": 1, "code": "EUR", "symbol": "€"}
_OPERATOR_IDS = {network.code: index for index, network in enumerate(NETWORKS, start=1)}
_COUNTRY_IDS = {mcc: index for index, mcc in enumerate(sorted({n.mcc for n in NETWORKS}), start=70)}
_TAGS = ("lab", "eu,metering", None)


def render_batch(batch: Sequence[Usage], *, single: bool) -> bytes:
    """The body of one push: an array of records, or a bare object where the batch size is 1."""
    return orjson.dumps(usage_record(batch[0]) if single else [usage_record(usage) for usage in batch])


def usage_record(usage: Usage) -> dict[str, Any]:
    """One usage record; serialise it with orjson, which writes its `Fragment`s as they are."""
    network = usage.network
    amount = megabytes if usage.service == "data" else str
    return {
        "id": usage.id,
        "traffic_type": _TRAFFIC_TYPES[usage.service],
        "start_timestamp": utc_text(usage.start),
        "end_timestamp": utc_text(usage.end),
        "volume": {
            "total": orjson.Fragment(amount(usage.total)),
            "rx": orjson.Fragment(amount(usage.rx)),
            "tx": orjson.Fragment(amount(usage.tx)),
        },
        "cost": orjson.Fragment(f"{usage.cost.normalize():f}"),
        "currency": EURO,
        "imsi": _imsi(usage.sim),
        "imsi_id": usage.sim.number,
        "session_id": usage.session_id,
        "sim": {
            "id": usage.sim.number,
            "iccid": usage.sim.iccid,
            "msisdn": _msisdn(usage.sim),
            "production_date": "2021-01-01T00:00:00Z",
        },
        "endpoint": endpoint_of(usage.sim) | {"balance": None},
        "organisation": organisation(usage.sim),
        "operator": {
            "id": _OPERATOR_IDS[network.code],
            "name": network.operator,
            "mnc": network.mnc,
            "country": {"id": _COUNTRY_IDS[network.mcc], "mcc": network.mcc, "name": network.country_name},
        },
        "tariff": {"id": 1, "name": "Plan A", "ratezone": {"id": 2, "name": "Zone 2"}},
    }


def sim_item(sim: Sim) -> dict[str, Any]:
    """One SIM of the listing, where `iccid` lacks the Luhn digit that the Data Streamer's has."""
    return {
        "id": sim.number,
        "iccid": sim.canonical_iccid,
        "iccid_with_luhn": sim.iccid,
        "eid": None,
        "production_date": "2021-01-01T00:00:00.000+0000",
        "activation_date": "2021-02-01T08:30:00.000+0000",
        "status": {"id": 1, "description": "Activated"},
        "customer_org": organisation(sim) | {"country": {"id": 74, "name": "Germany"}},
        "issuer_org": {"id": 1, "name": "emnify"},
        "endpoint": endpoint_of(sim),
        "imsi": _imsi(sim),
        "msisdn": _msisdn(sim),
        "model": {"id": 1, "description": "Commercial", "memory_size": 64},
    }


def endpoint_item(sim: Sim) -> dict[str, Any]:
    """One endpoint of the listing, with its SIM."""
    return endpoint_of(sim) | {
        "created": "2021-02-01T08:30:00.000+0000",
        "last_updated": "2021-02-01T08:30:00.000+0000",
        "status": {"id": 0, "description": "Enabled"},
        "service_profile": {"id": 1, "name": "Default"},
        "tariff_profile": {"id": 1, "name": "Plan A"},
        "imei_lock": False,
        "sim": {
            "id": sim.number,
            "iccid": sim.canonical_iccid,
            "iccid_with_luhn": sim.iccid,
            "imsi": _imsi(sim),
            "msisdn": _msisdn(sim),
            "status": {"id": 1, "description": "Activated"},
        },
    }


def organisation(sim: Sim) -> dict[str, Any]:
    return {"id": sim.tenant.organisation_id, "name": sim.tenant.name.capitalize()}


def megabytes(volume: int) -> str:
    whole, rest = divmod(volume, BYTES_PER_MB)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def endpoint_of(sim: Sim) -> dict[str, Any]:
    return {
        "id": 50_000_000 + sim.number,
        "name": sim.name,
        "ip_address": f"10.{sim.number >> 16 & 255}.{sim.number >> 8 & 255}.{sim.number & 255}",
        "tags": _TAGS[sim.number % len(_TAGS)],
        "imei": f"35{sim.number:014d}",
    }


def _imsi(sim: Sim) -> str:
    return f"90143{sim.number:010d}"


def _msisdn(sim: Sim) -> str:
    return f"4236{sim.number:011d}"
