"""Endpoints, as emnify and SIMSY list them: `GET /v1/endpoints`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from streams.api.belongings import belongings
from streams.api.inventory_docs import ENDPOINTS
from streams.api.inventory_views import ThingView, status_of
from streams.api.listing import Form, Listing, any_text, iccid, lower_text, provider
from streams.api.service import Service
from streams.api.visits import collection, listed
from streams.inventory import Item

FILTERS: Final[Mapping[str, Form]] = {
    "provider": provider,
    "account": any_text,
    "iccid": iccid,
    "status": lower_text,
}


class EndpointsAnswer(BaseModel):
    """A page of endpoints by account and id."""

    model_config = ConfigDict(extra="forbid")

    endpoints: list[ThingView]
    next: str | None


def add_endpoints(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.get("/v1/endpoints", response_model=EndpointsAnswer, **ENDPOINTS)
    async def endpoints(request: Request) -> Response:
        seen, listing = await listed(request, service, "endpoints", FILTERS)
        async with seen.reader.complete():
            found = await belongings(
                seen, "endpoint", wanted_endpoint(listing), after=listing.after, limit=listing.limit
            )
        return collection(request, "endpoints", listing, [(each.place, each.view()) for each in found])


def wanted_endpoint(listing: Listing) -> Callable[[Item], bool]:
    """Return the test whether an endpoint passes the question's filters."""

    def passes(item: Item) -> bool:
        return (
            listing.passes("provider", item.provider)
            and listing.passes("account", item.account)
            and listing.passes("iccid", item.sim)
            and listing.passes("status", (status_of(item) or "").casefold())
        )

    return passes
