"""emnify's HTTP interface: authentication, listings, statistics, and the data streams beside them.

Paths are relative to the base URL (`https://cdn.emnify.net` in production).
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.simulators.data_streamer import DataStreamer
from connectors.simulators.emnify_errors import error, too_many
from connectors.simulators.emnify_limits import EmnifyLimits
from connectors.simulators.emnify_records import endpoint_item, endpoint_of, sim_item
from connectors.simulators.emnify_stats import DAY, Subject, daily, stats, with_summary
from connectors.simulators.emnify_streams import EmnifyStreams
from connectors.simulators.fleet import EMNIFY_ACCOUNT, Sim
from connectors.simulators.jwt import InvalidTokenError, sign, verify
from connectors.simulators.settings import EmnifySettings
from connectors.simulators.usage import Clock, UsageHistory

Handler = Callable[[Request], Awaitable[Response]]

PER_PAGE_DEFAULT = 2000
PER_PAGE_MAX = 2500
TOKEN_REQUESTS = 25
"""Of a token under the fault expired-tokens."""


class EmnifySimulator:
    """The stand-in's endpoints. Only usage streams to REST destinations can be created."""

    def __init__(
        self,
        sims: Sequence[Sim],
        history: UsageHistory,
        streamer: DataStreamer,
        settings: EmnifySettings,
        faults: frozenset[str],
        clock: Clock,
    ) -> None:
        self._sims = sims
        self._history = history
        self._faults = faults
        self._requests = 0
        self._issued = 0
        self.limits = EmnifyLimits(clock, by_path=settings.path_limits)
        self._tokens: dict[str, int] = {}
        self._settings = settings
        self._clock = clock
        self._key = b"emnify:" + settings.application_token.get_secret_value().encode()
        self.app = Starlette(
            routes=[
                Route("/api/v1/authenticate", self._authenticate, methods=["POST"]),
                self._route("/api/v1/sim", "GET", self._listing(sim_item)),
                self._route("/api/v1/endpoint", "GET", self._listing(endpoint_item)),
                *(
                    self._route(f"/api/v1/{kind}/{{id}}/stats{days}", "GET", self._statistics)
                    for kind in ("sim", "endpoint", "organisation")
                    for days in ("", "/daily")
                ),
                *(self._route(*route) for route in EmnifyStreams(streamer).routes),
            ]
        )

    def _route(self, path: str, method: str, handler: Handler) -> Route:
        async def guarded(request: Request) -> Response:
            if not self.limits.allow(request.url.path):
                return too_many()
            return self._refusal(request) or self._misbehaviour(request) or await handler(request)

        return Route(path, guarded, methods=[method])

    def _refusal(self, request: Request) -> Response | None:
        """The gateway in front rejects what is no token of ours; the application rejects expired ones."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = verify(token if scheme.lower() == "bearer" else "", self._key)
        except InvalidTokenError as refused:
            return JSONResponse(
                {"message": str(refused)}, 401, headers={"x-amzn-ErrorType": "AccessDeniedException"}
            )
        self._tokens[token] = self._tokens.get(token, 0) + 1
        dies = "emnify-expired-tokens" in self._faults and self._tokens[token] > TOKEN_REQUESTS
        if dies or claims["exp"] <= self._clock().timestamp():
            return error(401, 1103, "TokenExpired", "The token has expired")
        return None

    def _misbehaviour(self, request: Request) -> Response | None:
        """What a request gets in place of its answer, if anything."""
        self._requests += 1
        statistics = "/stats" in request.url.path
        if "emnify-throttle" in self._faults and statistics and self._requests % 9 in {4, 5}:
            return too_many()
        if "emnify-errors" in self._faults and self._requests % 11 == 3:
            return Response("<html>Bad gateway</html>", 502, media_type="text/html")
        if "emnify-errors" in self._faults and self._requests % 11 == 7:
            return Response('[{"data":', media_type="application/json")
        return None

    async def _authenticate(self, request: Request) -> Response:
        """A failed login has an empty body."""
        if not self.limits.allow(request.url.path):
            return too_many()
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            return Response(status_code=401)
        expected = self._settings.application_token.get_secret_value()
        if not isinstance(body, dict) or body.get("application_token") != expected:
            return Response(status_code=401)
        issued = int(self._clock().timestamp())
        self._issued += 1
        claims = {
            "iat": issued,
            "exp": issued + self._settings.token_lifetime_seconds,
            "jti": self._issued,
        }
        return JSONResponse({"auth_token": sign(claims, self._key)})

    def _listing(self, item: Callable[[Sim], Any]) -> Handler:
        async def handler(request: Request) -> Response:
            return self._list(request, item)

        return handler

    def _list(self, request: Request, item: Callable[[Sim], Any]) -> Response:
        """A bare array, paging in headers. A page past the end repeats the last one; page 0 is the first."""
        query = request.query_params
        try:
            page, per_page = int(query.get("page", "1")), int(query.get("per_page", PER_PAGE_DEFAULT))
        except ValueError:
            return error(422, 1301, "InvalidQueryCriteria", "page and per_page are integers")
        if "q" in query or query.get("sort", "id") not in {"id", "+id", " id"}:
            return error(422, 1301, "InvalidQueryCriteria", "this stand-in neither filters nor sorts")
        per_page = PER_PAGE_DEFAULT if per_page < 1 else min(per_page, PER_PAGE_MAX)
        pages = max(1, -(-len(self._sims) // per_page))
        page = min(max(page, 1), pages)
        headers = {
            "X-Count-Per-Page": str(per_page),
            "X-Current-Page": str(page),
            "X-Total-Count": str(len(self._sims)),
            "X-Total-Pages": str(pages),
        }
        if pages > 1:
            headers["Link"] = _links(request, page, pages, per_page)
        shown = self._sims[(page - 1) * per_page : page * per_page]
        return JSONResponse([item(sim) for sim in shown], headers=headers)

    async def _statistics(self, request: Request) -> Response:
        """Of one SIM, endpoint or organisation; `my` organisation has all the others in it."""
        by_day = request.url.path.endswith("/daily")
        kind, wanted = request.url.path.split("/")[-4 if by_day else -3], request.path_params["id"]
        of_all = kind == "organisation" and wanted == "my"
        sims = {sim.number for sim in self._sims if of_all or str(_ids(sim)[kind]) == wanted}
        if not sims:
            return error(404, 1201, "NotFound", f"There is no such {kind}")
        usages = [usage for usage in self._history.of_account(EMNIFY_ACCOUNT) if usage.sim.number in sims]
        subject = Subject(f"{kind}_id", 0 if of_all else int(wanted), as_text=kind != "sim")
        now = self._clock()
        if not by_day:
            body = stats(usages, subject, now)
            return _json([body] if kind == "sim" else body)
        query = request.query_params
        try:
            first = date.fromisoformat(query.get("start_date", f"{now:%Y-%m}-01"))
            end = date.fromisoformat(query.get("end_date", f"{now:%Y-%m-%d}"))
        except ValueError:
            return error(422, 1403, "InvalidFormat", "start_date and end_date are days")
        if kind == "organisation":
            days = daily(usages, subject, first, end - DAY)
            return _json(with_summary(days, usages, subject))
        return _json(daily(usages, subject, first, end))


def _ids(sim: Sim) -> dict[str, int]:
    return {
        "sim": sim.number,
        "endpoint": endpoint_of(sim)["id"],
        "organisation": sim.tenant.organisation_id,
    }


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _links(request: Request, page: int, pages: int, per_page: int) -> str:
    targets = {"first": 1, "prev": page - 1, "next": page + 1, "last": pages}
    return ", ".join(
        f'<{request.url.replace(query=urlencode({"page": target, "per_page": per_page}))}>; rel="{rel}"'
        for rel, target in targets.items()
        if 1 <= target <= pages
    )
