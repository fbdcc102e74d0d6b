"""SIMSY's reporting API: usage, bundles, bundle instances, endpoints and exports of one tenant a token.

The documentation and the published server source disagree in places; `profile` says which one is spoken.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.simulators.fleet import Sim
from connectors.simulators.limits import RateLimit
from connectors.simulators.settings import SimsySettings
from connectors.simulators.simsy_accounts import (
    BUNDLES,
    MIB,
    Instance,
    SimsyAccount,
    SimsyAccounts,
    bundle_row,
)
from connectors.simulators.simsy_export import REPORTS, Exports, export_answer
from connectors.simulators.simsy_requests import SimsyError, Visit, parse_instant
from connectors.simulators.simsy_usage import (
    Grouping,
    Listed,
    SimsyFeed,
    data_mb,
    endpoint_row,
    record_row,
    summary_rows,
    summary_totals,
    text_of,
)
from connectors.simulators.usage import Clock, UsageHistory

SLOW_S: Final = 1 / 3
EXPORT_COST: Final = 5


@dataclass(slots=True)
class _Tenant:
    account: SimsyAccount
    limit: RateLimit
    visits: int = field(default=0)


Handler = Callable[[Visit], Awaitable[Response]]


class SimsySimulator:
    """The stand-in's endpoints. Whose data a request sees depends on its header pair alone."""

    def __init__(
        self,
        sims: Sequence[Sim],
        history: UsageHistory,
        settings: SimsySettings,
        faults: frozenset[str],
        clock: Clock,
    ) -> None:
        if "simsy-worker" in faults:
            settings = settings.model_copy(update={"profile": "worker"})
        self._settings = settings
        self._faults = faults
        self._clock = clock
        self._feed = SimsyFeed(history, settings, faults)
        self._accounts = SimsyAccounts(sims, settings.tokens, history.history_from)
        self._tenants = {
            account.name: _Tenant(account, RateLimit(settings.requests_a_minute, clock))
            for account in self._accounts.all
        }
        self._exports = Exports(clock)
        self.app = Starlette(
            routes=[
                self._route("/api/v1/usage/summary", self._summary),
                self._route("/api/v1/usage/records", self._records),
                self._route("/api/v1/bundles", self._bundles),
                self._route("/api/v1/bundles/{bundle_id}", self._bundle),
                self._route("/api/v1/bundle-instances", self._instances),
                self._route("/api/v1/endpoints", self._endpoints),
                self._route("/api/v1/endpoints/{endpoint_id}/usage", self._endpoint_usage),
                self._route("/api/v1/export", self._export, "POST", EXPORT_COST),
                Route("/api/v1/exports/{name}", self._exports.download),
            ],
            exception_handlers={404: _unknown_path},
        )

    def report(self) -> dict[str, Any]:
        """What each account was asked: `busiest` is the dearest minute, which `limit` must not exceed."""
        now = self._clock()
        return {
            name: {
                "synced": len(self._feed.synced(tenant.account, now)),
                "requests": tenant.limit.requests,
                "refused": tenant.limit.refused,
                "busiest": tenant.limit.busiest,
                "limit": tenant.limit.limit,
            }
            for name, tenant in self._tenants.items()
        }

    def _route(self, path: str, handler: Handler, method: str = "GET", cost: int = 1) -> Route:
        async def guarded(request: Request) -> Response:
            given = request.headers
            account = self._accounts.authenticate(
                given.get("CF-Access-Client-Id", ""), given.get("CF-Access-Client-Secret", "")
            )
            if account is None:
                # Told before anything is counted, so without the headers of the limit.
                return SimsyError(401, "Unauthorized", "Invalid or missing service token").response()
            tenant = self._tenants[account.name]
            tenant.visits += 1
            response: Response
            if not tenant.limit.take(cost):
                response = SimsyError(429, "Rate limit exceeded").response()
            else:
                response = await self._answer(tenant, handler, request)
            response.headers.update(tenant.limit.headers())
            return response

        return Route(path, guarded, methods=[method])

    async def _answer(self, tenant: _Tenant, handler: Handler, request: Request) -> Response:
        """Misbehave where that is asked for; else answer."""
        visits = tenant.visits
        if "simsy-slow" in self._faults:
            await asyncio.sleep(SLOW_S)
        if "simsy-throttle" in self._faults and visits % 13 == 5:
            return SimsyError(429, "Rate limit exceeded").response()
        if "simsy-errors" in self._faults and visits % 7 == 3:
            error = (504, "Gateway Timeout") if visits % 2 else (500, "Internal error")
            return SimsyError(*error).response()
        try:
            response = await handler(Visit(request, tenant.account, self._settings, self._clock()))
        except SimsyError as error:
            return error.response()
        if "simsy-errors" in self._faults and visits % 11 == 6:
            return Response(bytes(response.body)[:-20], media_type="application/json")
        return response

    async def _summary(self, visit: Visit) -> Response:
        grouping = visit.query.get("group_by", "daily")
        if grouping not in get_args(Grouping):
            raise SimsyError(400, "Invalid parameters", "group_by: want daily, monthly or annual")
        rows = visit.within(self._feed.synced(visit.account, visit.now))
        by_period = summary_rows(rows, cast("Grouping", grouping), visit.settings.profile)
        if visit.worker:
            period = {
                "from": visit.query.get("from", "all"),
                "to": visit.query.get("to", "now"),
                "group_by": grouping,
            }
            totals = summary_totals(rows, total="total_", buy="total_buy", sell="total_sell")
        else:
            start, end = visit.period()
            period = {"from": _short(start), "to": _short(end)}
            totals = {
                "total_data_mb": data_mb(rows),
                "total_records": len(rows),
                "active_endpoints": len({row.usage.sim.number for row in rows}),
            }
        body = {"tenant": visit.account.title, "period": period, "summary": totals, "data": by_period}
        return JSONResponse(body)

    async def _records(self, visit: Visit) -> Response:
        wanted = visit.query.get("iccid")
        rows = [
            row
            for row in visit.within(self._feed.records(visit.account, visit.now))
            if wanted in (None, row.usage.sim.canonical_iccid)
        ]

        def render(row: Listed) -> dict[str, Any]:
            return record_row(visit.account, row, visit.settings.profile)

        return visit.page(rows, render)

    async def _bundles(self, visit: Visit) -> Response:
        status = visit.query.get("status", "").lower()
        return visit.page([each for each in BUNDLES if status in ("", each.status.lower())], bundle_row)

    async def _bundle(self, visit: Visit) -> Response:
        wanted = visit.request.path_params["bundle_id"]
        bundle = next((each for each in BUNDLES if wanted in (each.id, each.moniker)), None)
        if bundle is None:
            raise SimsyError(404, "Bundle not found")
        instances = [each for each in visit.account.instances() if each.bundle is bundle]
        rows = [self._instance_row(visit, each) for each in instances[:50]]
        return JSONResponse(
            {"bundle": bundle_row(bundle), "instances": rows, "instance_count": len(instances)}
        )

    async def _instances(self, visit: Visit) -> Response:
        iccid, bundle, status = (visit.query.get(name, "") for name in ("iccid", "bundle_id", "status"))
        instances = [
            each
            for each in visit.account.instances()
            if iccid in each.sim.canonical_iccid
            and bundle in ("", each.bundle.moniker, each.id)
            and status.lower() in ("", each.status_at(visit.now).lower())
        ]
        return visit.page(instances, lambda each: self._instance_row(visit, each))

    async def _endpoints(self, visit: Visit) -> Response:
        rows = self._feed.synced(visit.account, visit.now)
        return visit.page(visit.account.sims, lambda sim: endpoint_row(visit.account, sim, rows, visit.now))

    async def _endpoint_usage(self, visit: Visit) -> Response:
        sim = visit.account.find_endpoint(visit.request.path_params["endpoint_id"])
        if sim is None:
            raise SimsyError(404, "Endpoint not found")
        grouping = visit.query.get("group_by", "daily")
        synced = self._feed.synced(visit.account, visit.now)
        rows = [row for row in visit.within(synced) if row.usage.sim is sim]
        return JSONResponse(
            {
                "endpoint": sim.name,
                "iccid": sim.canonical_iccid,
                "endpoint_id": visit.account.endpoint_id(sim),
                "period": {
                    "from": visit.query.get("from"),
                    "to": visit.query.get("to"),
                    "group_by": grouping,
                },
                "data": summary_rows(rows, cast("Grouping", grouping), visit.settings.profile),
            }
        )

    async def _export(self, visit: Visit) -> Response:
        """`from` and `to` count for usage alone, whose rows have no `id` at the published server."""
        asked = await visit.request.json()
        report = asked.get("report_type")
        if report not in REPORTS or asked.get("format") not in ("csv", "json"):
            raise SimsyError(400, "Invalid parameters", f"report_type: want one of {', '.join(REPORTS)}")
        account, iccid = visit.account, (asked.get("filters") or {}).get("iccid", "")
        synced = self._feed.synced(account, visit.now)
        rows: list[dict[str, Any]]
        if report == "usage":
            start, end = (parse_instant(asked[name]) if name in asked else None for name in ("from", "to"))
            shown = [
                record_row(account, row, visit.settings.profile)
                for row in sorted(synced, key=lambda row: row.timestamp, reverse=True)
                if (start is None or start <= row.timestamp) and (end is None or row.timestamp <= end)
            ]
            hidden = {"id"} if visit.worker else set[str]()
            rows = [{key: value for key, value in row.items() if key not in hidden} for row in shown]
        elif report == "bundles":
            rows = [bundle_row(bundle) for bundle in BUNDLES]
        elif report == "instances":
            rows = [self._instance_row(visit, each) for each in account.instances()]
        else:
            rows = [endpoint_row(account, sim, synced, visit.now) for sim in account.sims]
        rows = [row for row in rows if iccid in row.get("iccid", "")]
        file = export_answer(report, asked["format"], account.title, rows, text_of(visit.now))
        if visit.worker:
            return file
        return JSONResponse(self._exports.keep(file, visit.request))

    def _instance_row(self, visit: Visit, each: Instance) -> dict[str, Any]:
        used = sum(
            row.charged
            for row in self._feed.synced(visit.account, visit.now)
            if row.usage.sim is each.sim and each.start <= row.timestamp < each.end
        )
        number = str if visit.worker else int
        return {
            "id": each.id,
            "iccid": each.sim.canonical_iccid,
            "customer_name": visit.account.title,
            "endpoint_name": each.sim.name,
            "bundle_name": each.bundle.name,
            "bundle_moniker": each.bundle.moniker,
            "bundle_instance_id": each.id,
            "start_time": text_of(each.start),
            "end_time": text_of(each.end),
            "status_name": each.status_at(visit.now),
            "status_moniker": each.status_at(visit.now).lower(),
            "sequence": each.sequence,
            "sequence_max": each.sequence_max,
            "data_used_mb": number(used // MIB),
            "data_allowance_mb": number(each.bundle.allowance_mb),
        }


def _short(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


async def _unknown_path(_request: Request, _error: Exception) -> Response:
    return SimsyError(404, "Not found").response()
