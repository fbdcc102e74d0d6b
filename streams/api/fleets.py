"""Fleets, as KORE lists them: `GET /v1/fleets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from streams.api.inventory_docs import FLEETS
from streams.api.inventory_reader import Place
from streams.api.inventory_views import ThingView, thing_view, unlisted_view
from streams.api.listing import Form, any_text, provider
from streams.api.service import Service
from streams.api.tenure import Stretch, Tenure
from streams.api.visits import Visit, collection, listed
from streams.inventory import ALWAYS

FILTERS: Final[Mapping[str, Form]] = {"provider": provider, "account": any_text}


class FleetsAnswer(BaseModel):
    """A page of fleets by account and id."""

    model_config = ConfigDict(extra="forbid")

    fleets: list[ThingView]
    next: str | None


def add_fleets(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.get("/v1/fleets", response_model=FleetsAnswer, **FLEETS)
    async def fleets(request: Request) -> Response:
        seen, listing = await listed(request, service, "fleets", FILTERS)
        async with seen.reader.complete():
            times = await _times(seen)
            wanted = sorted(place for place in times if listing.after is None or place > listing.after)
            views = await _views(seen, wanted, times)
        kept = [
            (place, view)
            for place, view in views
            if listing.passes("account", place[0]) and listing.passes("provider", view["provider"])
        ]
        return collection(request, "fleets", listing, kept)


async def _times(seen: Visit) -> dict[Place, Tenure]:
    """Return the fleets that are the tenant's, or that its SIMs were in, with when."""
    times = {
        (account, id_): [Stretch(ALWAYS, None)]
        for account in seen.whole
        for id_ in await seen.reader.ids(account, "fleet")
    }
    async for chunk in seen.reader.owned():
        for held in await seen.reader.held([place for place in chunk if place[0] not in seen.whole]):
            for stay in held.stays:
                if stay.fleet is not None:
                    times.setdefault((held.account, stay.fleet), []).append(stay.when)
    return {
        place: Tenure(tuple(sorted(stretches, key=lambda stretch: stretch.start)))
        for place, stretches in times.items()
    }


async def _views(
    seen: Visit, places: list[Place], times: Mapping[Place, Tenure]
) -> list[tuple[Place, dict[str, Any]]]:
    items = await seen.reader.items("fleet", places)
    views = []
    for place in places:
        item = items.get(place)
        if item is not None and times[place].saw(item.observed_at):
            views.append((place, thing_view(item, times[place])))
        else:
            views.append((place, unlisted_view(place[0], seen.providers.get(place[0]), place[1])))
    return views
