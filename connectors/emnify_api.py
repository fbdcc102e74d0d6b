"""The calls that are made to emnify: login, data streams, the listing of SIMs, statistics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from connectors.answered import LaxPart
from connectors.auth import Token, TokenCache, jwt_expiry
from connectors.emnify_settings import EmnifyAccount
from connectors.http import Answer, Call, Failure, HttpClient, ProviderError
from connectors.paging import Page, listed, numbered, whole
from connectors.registry import callback_url
from streams.events import describe

USAGE_STREAM: Final = 1
RUNNING: Final = 1
ERROR: Final = 3
"""emnify's ids of stream types and stream statuses (emnify's documentation)."""

PAGE_SIZE: Final = 2500
"""The most that emnify allows."""


class _Type(LaxPart):
    id: int


class _Status(LaxPart):
    id: int
    description: str = ""


class _Credentials(LaxPart):
    url: str | None = None


class _Destination(LaxPart):
    credentials: _Credentials | None = None


class Stream(LaxPart):
    id: int
    data_stream_type: _Type | None = None
    destination: _Destination | None = None
    status: _Status


class _Organisation(LaxPart):
    id: int | None = None
    name: str | None = None


class _Endpoint(LaxPart):
    id: int
    name: str | None = None
    tags: str | None = None


class SimItem(LaxPart):
    """One SIM of the listing; its `iccid` lacks the Luhn digit (emnify's documentation)."""

    id: int
    iccid: str
    eid: str | None = None
    customer_org: _Organisation | None = None
    endpoint: _Endpoint | None = None


class _Sim(LaxPart):
    iccid: str


class EndpointItem(LaxPart):
    """One endpoint of the listing; it may have no SIM."""

    id: int
    name: str | None = None
    tags: str | None = None
    status: _Status | None = None
    sim: _Sim | None = None


M = TypeVar("M", bound=LaxPart)


class EmnifyApi:
    """One account's view of the API."""

    def __init__(self, account: EmnifyAccount, http: HttpClient) -> None:
        self._account = account
        self._http = http
        self._tokens = TokenCache(self._login)

    async def stream(self, public_url: str) -> Stream | None:
        """Return our data stream, or `None` where there is none."""
        settings = self._account.settings
        call = Call("GET", f"{settings.api_base}/api/v2/data_stream")
        answer = await self._http.call(call, self._tokens)
        try:
            streams = [Stream.model_validate(item) for item in _listed(answer.body)]
        except ValidationError as error:
            raise ProviderError(Failure.PROVIDER, f"{call.place}: {describe(error)}") from None
        if settings.stream_id is not None:
            return next((stream for stream in streams if stream.id == settings.stream_id), None)
        wanted = callback_url(public_url, self._account.name)
        ours = [stream for stream in streams if _is_usage(stream) and _url(stream) == wanted]
        return min(ours, key=lambda stream: stream.status.id, default=None)

    async def restart(self, stream: Stream) -> None:
        """Restart a stream that is in Error; what it kept comes first (emnify's documentation)."""
        url = f"{self._account.settings.api_base}/api/v2/data_stream/{stream.id}/restart"
        await self._http.call(Call("POST", url), self._tokens)

    def sims(self) -> AsyncIterator[list[SimItem]]:
        """Yield the SIMs page by page."""
        return self._pages("sim", SimItem)

    def endpoints(self) -> AsyncIterator[list[EndpointItem]]:
        """Yield the endpoints page by page."""
        return self._pages("endpoint", EndpointItem)

    async def _pages(self, of: str, model: type[M]) -> AsyncIterator[list[M]]:
        """Read a listing. A page past the end would repeat the last one."""
        call = Call("GET", f"{self._account.settings.api_base}/api/v1/{of}", {"per_page": str(PAGE_SIZE)})

        def read(asked: Call, answer: Answer) -> Page:
            return Page(listed(asked, answer.body), pages=whole(answer.headers.get("X-Total-Pages")))

        async for page in numbered(self._get, call, read):
            try:
                yield [model.model_validate(item) for item in page.items]
            except ValidationError as error:
                raise ProviderError(Failure.PROVIDER, f"{call.place}: {describe(error)}") from None

    async def stats(self, of: str) -> Any:
        """Return last and current month of `sim/ID`, `endpoint/ID` or `organisation/my`."""
        call = Call("GET", f"{self._account.settings.api_base}/api/v1/{of}/stats")
        return (await self._get(call)).body

    async def daily(self, of: str, first: date, end: date) -> Any:
        """Return the days from `first` until before `end`.

        `end_date` is the last day for SIMs and endpoints, and the day after it for organisations, by emnify's
        documentation of the latter; it leaves the former open.
        """
        last = end if of.startswith("organisation/") else end - timedelta(days=1)
        call = Call(
            "GET",
            f"{self._account.settings.api_base}/api/v1/{of}/stats/daily",
            {"start_date": first.isoformat(), "end_date": last.isoformat()},
        )
        return (await self._get(call)).body

    async def _get(self, call: Call) -> Answer:
        return await self._http.call(call, self._tokens)

    async def _login(self) -> Token:
        """An application token gives a JWT and no refresh token (emnify's documentation)."""
        settings = self._account.settings
        secret = settings.application_token.get_secret_value()
        call = Call("POST", f"{settings.api_base}/api/v1/authenticate", json={"application_token": secret})
        answer = await self._http.call(call)
        token = answer.body.get("auth_token") if isinstance(answer.body, dict) else None
        if not isinstance(token, str):
            raise ProviderError(Failure.PROVIDER, f"{call.place} answers without auth_token")
        return Token(token, jwt_expiry(token))


def _listed(body: Any) -> list[Any]:
    if not isinstance(body, list):
        raise ProviderError(Failure.PROVIDER, "emnify answers no list of data streams")
    return body


def _is_usage(stream: Stream) -> bool:
    return stream.data_stream_type is None or stream.data_stream_type.id == USAGE_STREAM


def _url(stream: Stream) -> str | None:
    credentials = stream.destination.credentials if stream.destination else None
    return credentials.url if credentials else None
