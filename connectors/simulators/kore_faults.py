"""How the KORE stand-in misbehaves where it is told to."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from connectors.simulators.faults import one_in_ten
from connectors.simulators.kore_errors import ACCESS_DENIED, INTERNAL, THROTTLED, UNAVAILABLE, KoreError
from connectors.simulators.usage import Usage

TOKEN_REQUESTS: Final = 12
SLOW_S: Final = 0.5


class KoreFaults:
    """Counts requests, because what befalls one follows from its number alone."""

    def __init__(self, names: frozenset[str], late: timedelta) -> None:
        self._names = names
        self._late = late
        self._requests = 0
        self._used: dict[str, int] = {}
        self._asked_at: datetime | None = None

    def token_dies(self, token: str) -> bool:
        """Whether this use of a token is one too many."""
        self._used[token] = self._used.get(token, 0) + 1
        return "kore-expired-tokens" in self._names and self._used[token] > TOKEN_REQUESTS

    async def before(self, request: Request) -> Response | None:
        """What a request gets in place of its answer, if anything."""
        self._requests += 1
        number = self._requests
        if "kore-slow" in self._names and number % 5 == 0:
            await asyncio.sleep(SLOW_S)
        if "kore-throttle" in self._names and number % 13 == 5:
            response = KoreError("Too many requests", THROTTLED, 429).response()
            if number % 2:
                response.headers["Retry-After"] = "1"
            return response
        if "kore-errors" in self._names and number % 11 == 3:
            wrong = (INTERNAL, 500) if number % 2 else (UNAVAILABLE, 503)
            return KoreError("Try again later", *wrong).response()
        group = request.query_params.get("Group")
        if "kore-no-grouping" in self._names and group in {"sim", "fleet"}:
            return KoreError(f"Group={group} is not enabled for this account", ACCESS_DENIED, 403).response()
        return None

    def after(self, response: Response) -> Response:
        """The answer as it arrives."""
        if "kore-errors" in self._names and self._requests % 17 == 9:
            return Response(bytes(response.body)[:-20], media_type="application/json")
        return response

    def shown(self, records: Iterable[Usage], now: datetime) -> Iterator[Usage]:
        """Usage as KORE knows it now: late for some, and at first under another network for others.

        History counts as fresh when it is first asked for, so that closed hours change too.
        """
        self._asked_at = self._asked_at or now
        for usage in records:
            fresh = now < max(usage.end, self._asked_at) + self._late
            if fresh and "kore-late-usage" in self._names and one_in_ten("late", usage):
                continue
            if fresh and "kore-refiled" in self._names and one_in_ten("refiled", usage):
                others = [network for network in usage.sim.networks if network is not usage.network]
                yield replace(usage, network=others[usage.id % len(others)])
                continue
            yield usage

    def row(self, item: dict[str, Any], filtered: Iterable[str]) -> dict[str, Any]:
        """A row with the dimensions that were filtered by, and with its money, as they are written."""
        if "kore-null-dimensions" in self._names:
            item |= dict.fromkeys(filtered)
        if "kore-number-money" in self._names:
            item["data_total_billed"] = float(item["data_total_billed"])
        return item
