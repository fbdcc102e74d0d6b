"""Onomondo's HTTP interface: usage, SIMs, tags and webhooks of one organisation.

Paths are relative to the base URL (`https://api.onomondo.com` in production).
"""

import asyncio
import base64
import binascii
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from connectors.simulators.fleet import ONOMONDO_ACCOUNT, Sim
from connectors.simulators.limits import RateLimit
from connectors.simulators.onomondo_bills import OnomondoBills
from connectors.simulators.onomondo_filter import Filter, InvalidError, parse_filter
from connectors.simulators.onomondo_rows import (
    Shape,
    hourly_rows,
    sim_id,
    sim_item,
    tag,
    tags_of,
    usage_row,
)
from connectors.simulators.onomondo_webhooks import OnomondoWebhooks
from connectors.simulators.settings import OnomondoSettings
from connectors.simulators.usage import Clock, UsageHistory

Handler = Callable[[Request], Awaitable[Response]]

LIMIT_MAX = 1000
BUSY_EVERY = 7
ERROR_EVERY = 11
SLOW_EVERY = 5
SLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a list that a request asks for."""

    limit: int
    offset: int
    after: str | None


class OnomondoSimulator:
    """The stand-in's endpoints. All SIMs of all tenants are visible to its one key."""

    def __init__(
        self,
        sims: Sequence[Sim],
        history: UsageHistory,
        webhooks: OnomondoWebhooks,
        settings: OnomondoSettings,
        faults: frozenset[str],
        clock: Clock,
    ) -> None:
        self._sims = {sim_id(sim): sim for sim in sims if sim.provider == "onomondo"}
        self._history = history
        self._bills = OnomondoBills(history, settings, faults, clock)
        self._webhooks = webhooks
        self._settings = settings
        self._faults = faults
        self._clock = clock
        self._shape = Shape(numeric_ids="onomondo-numeric-ids" in faults)
        self._limits: dict[str, RateLimit] = {}
        self._requests = 0
        self.app = Starlette(
            routes=[
                self._route("/usage", self._list_usage),
                self._route("/usage/tag-total/{tag_id}", self._tag_total),
                self._route("/usage/{sim_id}", self._list_usage_of_sim),
                self._route("/sims", self._list_sims),
                self._route("/sims/{sim_id}", self._show_sim),
                self._route("/tags/search/tags", self._list_tags),
                self._route("/webhooks", self._list_webhooks),
            ]
        )

    def report(self) -> dict[str, Any]:
        """Counts of bills and events; `pending` is what `/usage` or the webhook has still to tell."""
        hidden = sum(not self._bills.is_shown(usage) for usage in self._bills.all())
        webhook = self._webhooks.report()
        return {
            "generated": len(self._history.of_account(ONOMONDO_ACCOUNT)),
            "pending": hidden + webhook["pending"],
            "requests": sum(limit.requests for limit in self._limits.values()),
            "busiest_minute": max((limit.busiest for limit in self._limits.values()), default=0),
            "refused": sum(limit.refused for limit in self._limits.values()),
            "webhook": webhook,
        }

    def _route(self, path: str, handler: Handler) -> Route:
        async def guarded(request: Request) -> Response:
            limit = self._limit_of(request.client.host if request.client else "")
            if not limit.take(1):
                return _error(429, "rate_limit_exceeded", limit.headers())
            response = await self._fault() or await self._answer(request, handler)
            for name, value in limit.headers().items():
                response.headers.setdefault(name, value)
            return response

        return Route(path, guarded, methods=["GET"])

    def _limit_of(self, address: str) -> RateLimit:
        """All keys behind one address share a limit."""
        return self._limits.setdefault(address, RateLimit(self._settings.requests_per_minute, self._clock))

    async def _fault(self) -> Response | None:
        self._requests += 1
        if "onomondo-busy" in self._faults and self._requests % BUSY_EVERY == 0:
            soon = str(int(self._clock().timestamp()) + 1)
            return _error(429, "rate_limit_exceeded", {"X-RateLimit-Reset": soon})
        if "onomondo-errors" in self._faults and self._requests % ERROR_EVERY == 0:
            return HTMLResponse("<html><body>Bad Gateway</body></html>", 502)
        if "onomondo-slow" in self._faults and self._requests % SLOW_EVERY == 0:
            await asyncio.sleep(SLOW_SECONDS)
        return None

    async def _answer(self, request: Request, handler: Handler) -> Response:
        if not self._authorised(request.headers.get("authorization", "")):
            return _error(401, "unauthorized")
        try:
            return await handler(request)
        except InvalidError as error:
            return _error(400, str(error))

    def _authorised(self, given: str) -> bool:
        """The seed shows `Bearer`, live clients send the key alone: both are good."""
        key = self._settings.api_token.get_secret_value().encode()
        forms = [key] if "onomondo-raw-key" in self._faults else [key, b"Bearer " + key]
        return any(hmac.compare_digest(given.encode("latin-1", "replace"), form) for form in forms)

    async def _list_usage(self, request: Request) -> Response:
        wanted = parse_filter(request.query_params, by_sim=True)
        if "onomondo-strict-filter" in self._faults and wanted.time is None:
            raise InvalidError("filter_invalid")
        return self._usage_page(request, wanted)

    async def _list_usage_of_sim(self, request: Request) -> Response:
        """Usage of one SIM, by its id or its ICCID."""
        wanted = parse_filter(request.query_params, by_sim=False)
        sim = self._find(request.path_params["sim_id"])
        if sim is None:
            return _error(404, "sim_not_found")
        return self._usage_page(request, wanted.of_sim(sim_id(sim)))

    def _usage_page(self, request: Request, wanted: Filter) -> Response:
        window = _window(request)
        if request.query_params.get("group") == "hours":
            rows = [usage for _, usage in self._bills.matching(wanted)]
            return JSONResponse({"usage": hourly_rows(rows, self._shape), "pagination": {"has_more": False}})
        after = None if window.after is None else self._place_of(window.after, wanted)
        listed = self._bills.matching(wanted, after)
        shown = list(islice(listed, window.offset, window.offset + window.limit + 1))
        pagination: dict[str, Any] = {"has_more": len(shown) > window.limit}
        if pagination["has_more"]:
            del shown[window.limit :]
            last = -2 if "onomondo-repeated-rows" in self._faults and len(shown) > 1 else -1
            pagination["next_page"] = _cursor(f"{shown[last][0]}|{wanted.digest}")
        return JSONResponse(
            {"usage": [usage_row(usage, self._shape) for _, usage in shown], "pagination": pagination}
        )

    def _place_of(self, cursor: str, wanted: Filter) -> str:
        """Where a page begins; a cursor with another filter misleads, or is refused as a fault."""
        place, _, digest = cursor.partition("|")
        if digest != wanted.digest and "onomondo-cursor-filter" in self._faults:
            raise InvalidError("next_page_invalid")
        return place

    async def _tag_total(self, request: Request) -> Response:
        """All usage of the SIMs that bear the tag now."""
        now, wanted = self._clock(), request.path_params["tag_id"]
        if not any(wanted == each["id"] for each in self._tags()):
            return _error(404, "tag_not_found")
        of_tag = {key for key, sim in self._sims.items() if wanted in {t["id"] for t in tags_of(sim, now)}}
        total = sum(usage.total for usage in self._bills.all() if sim_id(usage.sim) in of_tag)
        return JSONResponse({"tag_id": wanted, "bytes": total})

    async def _list_sims(self, request: Request) -> Response:
        window = _window(request)
        ids = [key for key in sorted(self._sims) if window.after is None or key > window.after]
        ids = ids[window.offset :]
        shown = ids[: window.limit]
        pagination: dict[str, Any] = {"has_more": len(ids) > len(shown)}
        if pagination["has_more"]:
            pagination["next_page"] = _cursor(shown[-1])
        return JSONResponse({"sims": self._sim_items(shown), "pagination": pagination})

    async def _show_sim(self, request: Request) -> Response:
        sim = self._find(request.path_params["sim_id"])
        if sim is None:
            return _error(404, "sim_not_found")
        return JSONResponse(self._sim_items([sim_id(sim)])[0])

    async def _list_tags(self, request: Request) -> Response:
        window, tags = _window(request), self._tags()
        shown = tags[window.offset : window.offset + window.limit]
        counts = {"count": len(shown), "limit": window.limit, "offset": window.offset, "total": len(tags)}
        return JSONResponse({**counts, "result": shown})

    async def _list_webhooks(self, request: Request) -> Response:
        if self._webhooks.url is None:
            return JSONResponse([])
        item = {"id": tag("webhook")["id"], "url": self._webhooks.url, "label": "usage"}
        return JSONResponse([item | {"active": self._webhooks.active, "exclude_types": [], "tags": []}])

    def _find(self, wanted: str) -> Sim | None:
        by_id = self._sims.get(wanted)
        return by_id or next((sim for sim in self._sims.values() if sim.iccid == wanted), None)

    def _sim_items(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        now = self._clock()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        used: Counter[str] = Counter()
        for usage in self._bills.all():
            if usage.start >= month:
                used[sim_id(usage.sim)] += usage.total
        return [sim_item(self._sims[key], now, used[key]) for key in keys]

    def _tags(self) -> list[dict[str, Any]]:
        now = self._clock()
        found = {each["id"]: each for sim in self._sims.values() for each in tags_of(sim, now)}
        return sorted(found.values(), key=lambda each: str(each["name"]))


def _window(request: Request) -> _Window:
    parameters = request.query_params
    limit = parameters.get("limit", str(LIMIT_MAX))
    offset = parameters.get("offset", "0")
    if not _is_number(limit) or not 1 <= int(limit) <= LIMIT_MAX:
        raise InvalidError("limit_invalid")
    if not _is_number(offset):
        raise InvalidError("offset_invalid")
    cursor = parameters.get("next_page")
    return _Window(int(limit), int(offset), None if cursor is None else _uncursor(cursor))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _uncursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidError("next_page_invalid") from None


def _error(status: int, token: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": token}, status, headers=headers)
