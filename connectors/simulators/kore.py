"""KORE Super SIM's HTTP interface: token endpoint, UsageRecords, Sims, Networks and Fleets.

The token endpoint lives at `/api-services/v1/auth/token` and the API under `/v1`, as at KORE, where they are
two hosts.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.simulators.fleet import NETWORKS, Network, Sim
from connectors.simulators.jwt import InvalidTokenError, sign, verify
from connectors.simulators.kore_accounts import KoreAccount, KoreAccounts, network_sid
from connectors.simulators.kore_errors import INVALID_VALUE, KoreError
from connectors.simulators.kore_faults import KoreFaults
from connectors.simulators.kore_paging import page_response, refuse_unknown
from connectors.simulators.kore_streams import KoreEventStream
from connectors.simulators.kore_usage import (
    PARAMETERS,
    UsageQuery,
    UsageRow,
    parse_query,
    row_item,
    row_key,
    usage_rows,
)
from connectors.simulators.settings import KoreSettings
from connectors.simulators.usage import Clock, UsageHistory

AccountHandler = Callable[[Request, KoreAccount], Awaitable[Response]]

USAGE_PAGE_SIZE_MAX = 249
LIST_PAGE_SIZE_MAX = 1000
CREATED = "2021-01-01T00:00:00Z"


class KoreSimulator:
    """The stand-in's endpoints. Whose resources a request sees depends on its token alone."""

    def __init__(
        self,
        sims: Sequence[Sim],
        history: UsageHistory,
        settings: KoreSettings,
        faults: frozenset[str],
        seed: int,
        clock: Clock,
    ) -> None:
        self._history = history
        self._settings = settings
        self._clock = clock
        self._tokens = 0
        self._requests = 0
        self._refused = 0
        self._faults = KoreFaults(faults, timedelta(seconds=settings.late_seconds))
        self._accounts = KoreAccounts(sims, settings.clients)
        accounts = [self._accounts.of(name) for name in self._accounts.names]
        self.streams = [KoreEventStream(each, history, settings, faults, seed) for each in accounts]
        secrets = sorted(client.client_secret.get_secret_value() for client in settings.clients.values())
        self._key = "\0".join(["kore", *secrets]).encode()
        self.app = Starlette(
            routes=[
                Route("/api-services/v1/auth/token", self._issue_token, methods=["POST"]),
                self._route("/v1/UsageRecords", self._list_usage),
                self._route("/v1/Sims", self._list_sims),
                self._route("/v1/Networks", self._list_networks),
                self._route("/v1/Fleets", self._list_fleets),
            ]
        )

    def report(self) -> dict[str, Any]:
        """Counts of raw usage records, of which UsageRecords shows the sums, and of requests.

        `refused` are those that broke a rule, such as the longest range; none is refused for being one too
        many, as KORE publishes no limit.
        """
        accounts = {name: len(self._history.of_account(name)) for name in self._accounts.names}
        events = dict(zip(self._accounts.names, (stream.report() for stream in self.streams), strict=True))
        return {
            "generated": sum(accounts.values()),
            "accounts": accounts,
            "events": events,
            "requests": self._requests,
            "refused": self._refused,
        }

    def _route(self, path: str, handler: AccountHandler) -> Route:
        async def guarded(request: Request) -> Response:
            self._requests += 1
            if "authorization" not in request.headers:
                return JSONResponse({"message": "Unauthorized"}, 401)
            account = self._account_of(request)
            if account is None:
                message = "User is not authorized to access this resource with an explicit deny"
                return JSONResponse({"message": message, "error": "Invalid or expired token"}, 403)
            if (refusal := await self._faults.before(request)) is not None:
                return refusal
            try:
                return self._faults.after(await handler(request, account))
            except KoreError as error:
                self._refused += 1
                return error.response()

        return Route(path, guarded, methods=["GET"])

    def _account_of(self, request: Request) -> KoreAccount | None:
        scheme, _, token = request.headers["authorization"].partition(" ")
        try:
            claims = verify(token if scheme.lower() == "bearer" else "", self._key)
        except InvalidTokenError:
            return None
        if claims["exp"] <= self._clock().timestamp() or self._faults.token_dies(token):
            return None
        return self._accounts.named(claims["sub"])

    async def _issue_token(self, request: Request) -> Response:
        """OAuth 2 client credentials, form-encoded; there is no refresh token."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/x-www-form-urlencoded":
            return JSONResponse(
                {"error": "invalid_request", "error_description": "want application/x-www-form-urlencoded"},
                400,
            )
        form = {
            name: values[-1] for name, values in parse_qs((await request.body()).decode("latin-1")).items()
        }
        if form.get("grant_type") != "client_credentials":
            return JSONResponse(
                {"error": "unsupported_grant_type", "error_description": "want client_credentials"}, 400
            )
        account = self._accounts.authenticate(form.get("client_id", ""), form.get("client_secret", ""))
        if account is None:
            return JSONResponse(
                {
                    "error": "unauthorized_client",
                    "error_description": "Invalid client or Invalid client credentials",
                },
                401,
            )
        issued, lifetime = int(self._clock().timestamp()), self._settings.token_lifetime_seconds
        self._tokens += 1
        claims = {"sub": account.name, "iat": issued, "exp": issued + lifetime, "jti": self._tokens}
        return JSONResponse(
            {
                "access_token": sign(claims, self._key),
                "expires_in": lifetime,
                "token_type": "Bearer",
                "scope": "supersim",
            }
        )

    async def _list_usage(self, request: Request, account: KoreAccount) -> Response:
        refuse_unknown(request, PARAMETERS)
        now = self._clock()
        query: UsageQuery = parse_query(request.query_params, account, now)
        rows = usage_rows(
            query,
            account,
            self._faults.shown(self._history.of_account(account.name), now),
            now=now,
            as_of=self._history.as_of(),
            billing_delay=self._settings.billing_delay,
        )

        def render(row: UsageRow) -> dict[str, Any]:
            return self._faults.row(row_item(row, query, account), query.filtered)

        return page_response(
            request,
            "usage_records",
            rows,
            key_of=lambda row: row_key(row, query),
            render=render,
            largest=USAGE_PAGE_SIZE_MAX,
            invalid=INVALID_VALUE,
        )

    async def _list_sims(self, request: Request, account: KoreAccount) -> Response:
        """`Fleet` is the membership of now, unlike the filter of UsageRecords."""
        refuse_unknown(request, {"Status", "Fleet", "Iccid"})
        wanted = request.query_params
        now = self._clock()
        base = str(request.url.replace(query=""))

        def render(sim: Sim) -> dict[str, Any]:
            sid = account.sim_sid(sim)
            return {
                "sid": sid,
                "unique_name": sim.name,
                "account_sid": account.sid,
                "iccid": sim.iccid,
                "status": "active",
                "fleet_sid": account.fleet_sid(sim.fleet_at(now)),
                "date_created": CREATED,
                "date_updated": CREATED,
                "url": f"{base}/{sid}",
                "links": {"billing_periods": f"{base}/{sid}/BillingPeriods"},
            }

        def chosen(sim: Sim) -> bool:
            fleet = sim.fleet_at(now)
            return (
                wanted.get("Status", "active") == "active"
                and wanted.get("Iccid", sim.iccid) == sim.iccid
                and wanted.get("Fleet", fleet) in {fleet, account.fleet_sid(fleet)}
            )

        sims = [sim for sim in account.sims if chosen(sim)]
        return page_response(
            request, "sims", sims, key_of=account.sim_sid, render=render, largest=LIST_PAGE_SIZE_MAX
        )

    async def _list_networks(self, request: Request, account: KoreAccount) -> Response:
        """The same for every account. Usage is filed under the first identifier of a Network."""
        refuse_unknown(request, {"IsoCountry"})
        wanted = request.query_params.get("IsoCountry")
        base = str(request.url.replace(query=""))

        def render(network: Network) -> dict[str, Any]:
            pairs = ((network.mcc, network.mnc), *network.further_identifiers)
            return {
                "sid": network_sid(network),
                "friendly_name": network.operator,
                "iso_country": network.country,
                "identifiers": [{"mcc": mcc, "mnc": mnc} for mcc, mnc in pairs],
                "url": f"{base}/{network_sid(network)}",
            }

        networks = [network for network in NETWORKS if wanted in (None, network.country)]
        return page_response(
            request, "networks", networks, key_of=network_sid, render=render, largest=LIST_PAGE_SIZE_MAX
        )

    async def _list_fleets(self, request: Request, account: KoreAccount) -> Response:
        """`data_limit` is in megabytes, although usage is in bytes."""
        refuse_unknown(request, set())
        base = str(request.url.replace(query=""))

        def render(fleet: str) -> dict[str, Any]:
            sid = account.fleet_sid(fleet)
            return {
                "sid": sid,
                "unique_name": fleet,
                "account_sid": account.sid,
                "data_enabled": True,
                "data_limit": 1000,
                "date_created": CREATED,
                "date_updated": CREATED,
                "url": f"{base}/{sid}",
            }

        return page_response(
            request,
            "fleets",
            account.fleets,
            key_of=account.fleet_sid,
            render=render,
            largest=LIST_PAGE_SIZE_MAX,
        )
