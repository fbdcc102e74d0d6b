"""A KORE that is scripted by what was used, and an account's sweeps against it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.bookmarks import Bookmark, Bookmarks
from connectors.http import HttpClient
from connectors.kore_sweep import KoreSweep
from connectors.values import utc_text
from streams.usage import UsageRecord
from tests.unit.connector_fakes import NOW, MemoryHistory, MemorySender, kore_account, no_consumer, toolbox_of

START = NOW.replace(minute=0) - timedelta(hours=2)
WINDOW = {"StartTime": utc_text(START), "EndTime": utc_text(START + timedelta(hours=3))}


class Kore:
    """Answers for what it is told was used: one SIM, network and fleet, unless the test says otherwise."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.sims = [{"sid": "HS1", "iccid": "89883070000000000016", "unique_name": "m1", "fleet_sid": "HF1"}]
        self.used: list[dict[str, Any]] = [used()]
        self.refused: set[str] = set()
        self.answer: list[Any] | None = None
        """What stands in place of the SIMs' rows."""
        self.missing = 0
        """Bytes that the plain totals have besides."""
        self.next_page: str | None = None
        self.app = Starlette(
            routes=[
                Route("/token", self._token, methods=["POST"]),
                Route("/v1/Sims", self._sims),
                Route("/v1/Networks", self._networks),
                Route("/v1/Fleets", self._fleets),
                Route("/v1/UsageRecords", self._usage),
            ]
        )

    async def _token(self, _request: Request) -> Response:
        return JSONResponse({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})

    async def _sims(self, _request: Request) -> Response:
        return JSONResponse({"sims": self.sims, "meta": {"next_page_url": None}})

    async def _networks(self, _request: Request) -> Response:
        networks = [
            {"sid": f"HW{number}", "iso_country": "de", "identifiers": [{"mcc": "262", "mnc": f"0{number}"}]}
            for number in (1, 2)
        ]
        return JSONResponse({"networks": networks, "meta": {"next_page_url": None}})

    async def _fleets(self, _request: Request) -> Response:
        fleets = [{"sid": f"HF{number}"} for number in (1, 2, 3)]
        return JSONResponse({"fleets": fleets, "meta": {"next_page_url": None}})

    async def _usage(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.asked.append(query)
        group = query.get("Group")
        if group in self.refused:
            return JSONResponse({"status": 403, "code": 20006, "message": "access denied"}, 403)
        rows: Any = self.answer if group == "sim" and self.answer is not None else self.rows_of(query, group)
        return JSONResponse({"usage_records": rows, "meta": {"next_page_url": self.next_page}})

    def rows_of(self, query: dict[str, str], group: str | None) -> list[dict[str, Any]]:
        low, high = (datetime.fromisoformat(query[name]) for name in ("StartTime", "EndTime"))
        found: dict[tuple[datetime, Any], dict[str, Any]] = {}
        for use in self.used:
            kept = all(use[name] == query.get(name, use[name]) for name in ("Sim", "Network", "Fleet"))
            if not (kept and low <= use["start"] < high):
                continue
            start, end = {
                "hour": (use["start"], use["start"] + timedelta(hours=1)),
                "day": (use["start"].replace(hour=0), use["start"].replace(hour=0) + timedelta(days=1)),
                "all": (low, high),
            }[query["Granularity"]]
            key = use[group.capitalize()] if group else None
            row = found.setdefault((start, key), _empty(start, end, query, group, key))
            row["data_upload"] += use["up"]
            row["data_download"] += use["down"]
            row["data_total"] += use["up"] + use["down"]
            row |= {"data_total_billed": use["billed"], "billed_unit": use["unit"]}
        if group is None and "Sim" not in query:
            for row in found.values():
                row["data_total"] += self.missing
        return list(found.values())


def used(**changes: Any) -> dict[str, Any]:
    """What one SIM used in one hour on one network, in the fleet of that time."""
    place = {"Sim": "HS1", "Network": "HW1", "Fleet": "HF1", "start": START}
    return place | {"up": 10, "down": 20, "billed": None, "unit": None} | changes


def _empty(
    start: datetime, end: datetime, query: dict[str, str], group: str | None, key: str | None
) -> dict[str, Any]:
    sids = {f"{name.lower()}_sid": query.get(name) for name in ("Sim", "Network", "Fleet")}
    if group is not None:
        sids[f"{group}_sid"] = key
    period = {"start_time": utc_text(start), "end_time": utc_text(end)}
    return {**sids, "period": period, "data_upload": 0, "data_download": 0, "data_total": 0}


class Sweeping:
    """An account's sweeps with a provider and a clock that the test sets."""

    def __init__(self, address: str, kore: Kore, http: HttpClient) -> None:
        self.kore = kore
        self.now = NOW
        self.sender = MemorySender()
        self.bookmarks = Bookmarks(no_consumer, self.sender)
        self.history = MemoryHistory(self.sender)
        self._address = address
        self._http = http
        self.restart()

    def restart(self, **changes: Any) -> None:
        """Begin anew as another process would, perhaps with other settings."""
        addresses = {"api_base": f"{self._address}/v1", "token_url": f"{self._address}/token"}
        account = kore_account(**{**addresses, "history_hours": 2, **changes})
        toolbox = toolbox_of(
            self.sender, self.bookmarks, lambda: self.now, http=self._http, history=self.history
        )
        self.job = KoreSweep(account, toolbox)
        self.sweep = self.job.sweep

    @property
    def bookmark(self) -> Bookmark:
        found = self.bookmarks.get("kore-acme")
        assert found is not None
        return found

    @property
    def counted(self) -> dict[tuple[str | None, ...], int]:
        """Bytes by SIM, network and fleet, as the ledger would fold what was sent."""
        return {
            (record.sim[-1], record.network, record.fleet): record.total for record in self.records.values()
        }

    @property
    def records(self) -> dict[str, UsageRecord]:
        """What counts by identity: the newest statements that are not retracted."""
        newest: dict[str, UsageRecord] = {}
        for event in self.sender.usage:
            for record in event.records:
                if record.identity not in newest or record.revision >= newest[record.identity].revision:
                    newest[record.identity] = record
        return {name: record for name, record in newest.items() if not record.retracted}
