"""SIMs that a tenant has or had: `GET /v1/sims` and `GET /v1/sims/{iccid}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from streams.api.inventory_docs import SIM, SIMS
from streams.api.inventory_reader import CHUNK, Links
from streams.api.inventory_views import Held, SimView, sim_view
from streams.api.listing import Form, Listing, any_text, provider, truth
from streams.api.service import Service, answer
from streams.api.visits import Visit, collection, listed, named_sim, visit, wanted_account

FILTERS: Final[Mapping[str, Form]] = {
    "provider": provider,
    "account": any_text,
    "fleet": any_text,
    "tag": any_text,
    "current": truth,
}


class SimsAnswer(BaseModel):
    """A page of SIMs by ICCID."""

    model_config = ConfigDict(extra="forbid")

    sims: list[SimView]
    next: str | None


def add_sims(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/sims", response_model=SimsAnswer, **SIMS)
    async def sims(request: Request) -> Response:
        seen, listing = await listed(request, service, "sims", FILTERS)
        found: list[Held] = []
        async with seen.reader.complete():
            chunk_size = min(max(listing.limit + 1, 100), CHUNK)
            async for chunk in seen.reader.owned(listing.after, chunk_size):
                held = await seen.reader.held(chunk)
                found += (each for each in held if _passes(listing, seen, each))
                if len(found) > listing.limit:
                    break
            views = await _views(seen, found[: listing.limit + 1])
        return collection(request, "sims", listing, views)

    @app.get("/v1/sims/{iccid:path}", response_model=SimView, **SIM)
    async def sim(request: Request) -> Response:
        account = wanted_account(request)
        async with service.reader.complete():
            seen = await visit(request, service)
            async with seen.reader.complete():
                held = await named_sim(seen, request.path_params["iccid"], account)
                [(_, view)] = await _views(seen, [held])
        return answer(view)


def _passes(listing: Listing, seen: Visit, held: Held) -> bool:
    stays = held.stays
    fleet, tags = (stays[-1].fleet, stays[-1].tags) if stays else (None, ())
    provider = held.listed.provider if held.listed is not None else seen.providers.get(held.account)
    return (
        listing.passes("provider", provider)
        and listing.passes("account", held.account)
        and listing.passes("fleet", fleet)
        and listing.passes("tag", *(tags or (None,)))
        and listing.passes("current", "true" if held.tenure.current else "false")
    )


async def _views(seen: Visit, sims: Sequence[Held]) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    links = await seen.reader.links(sims)
    return [((held.account, held.sim), _view(seen, held, links[held.account, held.sim])) for held in sims]


def _view(seen: Visit, held: Held, links: Links) -> dict[str, Any]:
    return sim_view(
        held,
        seen.providers.get(held.account),
        replaces=links.replaces,
        replaced_by=links.replaced_by,
        parts=links.parts,
    )
