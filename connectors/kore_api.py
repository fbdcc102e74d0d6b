"""The calls that are made to KORE Super SIM: token, paging, Sims, Networks, UsageRecords."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError

from connectors.answered import Part
from connectors.auth import Token, TokenCache
from connectors.http import Answer, Call, Failure, HttpClient, ProviderError
from connectors.paging import Page, following, linked, listed
from connectors.values import utc_text
from streams.errors import DataError
from streams.events import describe
from streams.iccid import canonical_iccid

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sim:
    """A SIM as the API knows it; `iccid` is canonical, `fleet` the SID of its fleet of now."""

    sid: str
    iccid: str
    unique_name: str | None
    fleet: str | None


@dataclass(frozen=True, slots=True)
class Network:
    """A network; of several identifiers the first names it, as one resource is one operator."""

    sid: str
    code: str | None
    country: str | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet of SIMs."""

    sid: str
    unique_name: str | None


class _SimItem(Part):
    sid: str
    iccid: str = ""
    unique_name: str | None = None
    fleet_sid: str | None = None


class _Identifier(Part):
    mcc: str
    mnc: str


class _NetworkItem(Part):
    sid: str
    iso_country: str | None = None
    identifiers: tuple[_Identifier, ...] = ()


class _FleetItem(Part):
    sid: str
    unique_name: str | None = None


M = TypeVar("M", bound=Part)


class KoreApi:
    """One account's view of the API."""

    def __init__(
        self,
        http: HttpClient,
        *,
        api_base: str,
        token_url: str,
        client_id: str,
        client_secret: SecretStr,
        page_size: int,
    ) -> None:
        self._http = http
        self._api_base = api_base
        self._token_url = token_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._page_size = page_size
        self._tokens = TokenCache(self._login)
        self.requests = 0
        """Pages asked for so far; a retry of one counts once."""

    async def sims(self) -> dict[str, Sim]:
        """Return all SIMs by SID. One whose ICCID cannot be read is left out, and its usage dead-lettered."""
        found = {}
        async for page in self._pages("Sims", "sims", {}):
            for item in page:
                sim = _checked(_SimItem, item)
                try:
                    found[sim.sid] = Sim(sim.sid, canonical_iccid(sim.iccid), sim.unique_name, sim.fleet_sid)
                except DataError as error:
                    logger.warning("Sim %s of KORE cannot be used: %s", sim.sid, error)
        return found

    async def networks(self) -> dict[str, Network]:
        """Return all networks by SID."""
        found = {}
        async for page in self._pages("Networks", "networks", {}):
            for item in page:
                network = _checked(_NetworkItem, item)
                first = next(iter(network.identifiers), None)
                code = f"{first.mcc}-{first.mnc}" if first else None
                country = network.iso_country.upper() if network.iso_country else None
                found[network.sid] = Network(network.sid, code, country)
        return found

    async def fleets(self) -> list[Fleet]:
        """Return all fleets."""
        found = []
        async for page in self._pages("Fleets", "fleets", {}):
            for item in page:
                fleet = _checked(_FleetItem, item)
                found.append(Fleet(fleet.sid, fleet.unique_name))
        return found

    async def usage(
        self, start: datetime, end: datetime, query: Mapping[str, str]
    ) -> AsyncIterator[list[Any]]:
        """Yield the rows of `[start, end)`, both on a UTC hour, page by page.

        EndTime is always sent, because its default of now is not aligned; the end of the current hour is a
        valid EndTime, so the open hour is read too.
        """
        times = {"StartTime": utc_text(start), "EndTime": utc_text(end)}
        async for page in self._pages("UsageRecords", "usage_records", {**times, **query}):
            yield page

    async def try_credentials(self) -> None:
        """Log in and read one SIM. Raises `ProviderError`."""
        call = Call("GET", f"{self._api_base}/Sims", {"PageSize": "1"}, expired=token_expired)
        await self._http.call(call, self._tokens)

    async def _pages(self, path: str, key: str, query: Mapping[str, str]) -> AsyncIterator[list[Any]]:
        """Yield the items of each page."""
        call = Call(
            "GET",
            f"{self._api_base}/{path}",
            {**query, "PageSize": str(self._page_size)},
            expired=token_expired,
        )

        def read(asked: Call, answer: Answer) -> Page:
            items = listed(asked, answer.body, key)
            meta = answer.body.get("meta")
            if not isinstance(meta, dict):
                raise ProviderError(
                    Failure.PROVIDER, f"{asked.place} answers without meta, which tells the next page"
                )
            return Page(items, following=following(asked, meta.get("next_page_url")))

        async for page in linked(self._get, call, read):
            yield page.items

    async def _get(self, call: Call) -> Answer:
        self.requests += 1
        return await self._http.call(call, self._tokens)

    async def _login(self) -> Token:
        """Client credentials give an access token and its life in seconds (KORE's documentation)."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret.get_secret_value(),
        }
        asked_at = time.time()
        call = Call("POST", self._token_url, form=form)
        body = (await self._http.call(call)).body
        token = body.get("access_token") if isinstance(body, dict) else None
        if not isinstance(token, str):
            raise ProviderError(Failure.PROVIDER, f"{call.place} answers without access_token")
        life = body.get("expires_in")
        return Token(token, asked_at + float(life) if isinstance(life, int) else None)


def token_expired(status: int, body: bytes) -> bool:
    """Whether KORE says that the token has expired: a 403 with these words, not a 401."""
    return status == 403 and b"invalid or expired token" in body.lower()


def _checked(model: type[M], item: object) -> M:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        raise ProviderError(Failure.PROVIDER, f"KORE answers another shape: {describe(error)}") from None
