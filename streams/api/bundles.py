"""Bundles and their instances, as SIMSY lists them.

`GET /v1/bundles`, `/v1/bundles/{id}` and `/v1/bundle-instances`. A bundle of a shared account is shown to
whose SIMs have an instance of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streams.api.belongings import Belonging, belongings
from streams.api.inventory_docs import BUNDLE, BUNDLE_INSTANCES, BUNDLES
from streams.api.inventory_views import ThingView, status_of
from streams.api.listing import Form, Listing, any_text, iccid, instant, lower_text, provider
from streams.api.service import Service, answer
from streams.api.visits import Visit, collection, listed, only_thing, visit, wanted_account
from streams.inventory import Item

BUNDLE_FILTERS: Final[Mapping[str, Form]] = {
    "provider": provider,
    "account": any_text,
    "status": lower_text,
}
INSTANCE_FILTERS: Final[Mapping[str, Form]] = {
    "provider": provider,
    "account": any_text,
    "iccid": iccid,
    "bundle_id": any_text,
    "status": lower_text,
    "from": instant,
    "to": instant,
}

INSTANCES_SHOWN: Final = 1000


class BundlesAnswer(BaseModel):
    """A page of bundles by account and id."""

    model_config = ConfigDict(extra="forbid")

    bundles: list[ThingView]
    next: str | None


class BundleAnswer(BaseModel):
    """A bundle with its instances on the tenant's SIMs, whose details say what they used."""

    model_config = ConfigDict(extra="forbid")

    bundle: ThingView
    instances: Annotated[
        list[ThingView], Field(max_length=INSTANCES_SHOWN, description="The first ones by account and id")
    ]
    instance_count: Annotated[int, Field(ge=0, description="Of all; /v1/bundle-instances has the rest")]


class BundleInstancesAnswer(BaseModel):
    """A page of bundle instances by account and id."""

    model_config = ConfigDict(extra="forbid")

    bundle_instances: list[ThingView]
    next: str | None


def add_bundles(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/bundles", response_model=BundlesAnswer, **BUNDLES)
    async def bundles(request: Request) -> Response:
        seen, listing = await listed(request, service, "bundles", BUNDLE_FILTERS)
        async with seen.reader.complete():
            found = await wanted_bundles(seen, listing)
        behind = listing.after
        views = [(each.place, each.view()) for each in found if behind is None or each.place > behind]
        return collection(request, "bundles", listing, views)

    @app.get("/v1/bundles/{bundle_id:path}", response_model=BundleAnswer, **BUNDLE)
    async def bundle(request: Request) -> Response:
        seen = await visit(request, service)
        account, name = wanted_account(request), request.path_params["bundle_id"]
        async with seen.reader.complete():
            instances = await _instances(seen)
            found = await _bundles(seen, instances)
        named = [each for each in found if name in _names(each.item) and account in (None, each.item.account)]
        wanted = only_thing("bundle", [each.item for each in named], name, account)
        own = [each.view() for each in instances if _is_of(each.item, wanted)]
        return answer(
            {"bundle": named[0].view(), "instances": own[:INSTANCES_SHOWN], "instance_count": len(own)}
        )

    @app.get("/v1/bundle-instances", response_model=BundleInstancesAnswer, **BUNDLE_INSTANCES)
    async def bundle_instances(request: Request) -> Response:
        seen, listing = await listed(request, service, "bundle-instances", INSTANCE_FILTERS)
        async with seen.reader.complete():
            passes = await wanted_instance(seen, listing)
            found = await belongings(
                seen, "bundle-instance", passes, after=listing.after, limit=listing.limit
            )
        return collection(request, "bundle_instances", listing, [(each.place, each.view()) for each in found])


async def wanted_bundles(seen: Visit, listing: Listing) -> list[Belonging]:
    """Return the tenant's bundles that pass the question's filters, by account and id."""
    return [each for each in await _bundles(seen, await _instances(seen)) if _passes(listing, each.item)]


async def wanted_instance(seen: Visit, listing: Listing) -> Callable[[Item], bool]:
    """Return the test whether a bundle instance passes the question's filters."""
    wanted = await _wanted(seen, listing)

    def passes(item: Item) -> bool:
        return (
            _passes(listing, item)
            and listing.passes("iccid", item.sim)
            and _meets(listing, item)
            and (wanted is None or any(_is_of(item, each) for each in wanted))
        )

    return passes


async def _instances(seen: Visit) -> list[Belonging]:
    return await belongings(seen, "bundle-instance", lambda _: True)


async def _bundles(seen: Visit, instances: list[Belonging]) -> list[Belonging]:
    """Return the bundles that the tenant may see, by account and id.

    A bundle of a shared account is the tenant's by the SIM that had it first.
    """
    found = []
    for account in sorted({*seen.whole, *(each.item.account for each in instances)}):
        own = [each for each in instances if each.item.account == account]
        places = [(account, id_) for id_ in await seen.reader.ids(account, "bundle")]
        for item in (await seen.reader.items("bundle", places)).values():
            if account in seen.whole:
                found.append(Belonging(item, None))
                continue
            since = [(at, each.held) for each in own if (at := _since(each, item)) is not None]
            if since:
                found.append(Belonging(item, min(since, key=itemgetter(0))[1]))
    return found


async def _wanted(seen: Visit, listing: Listing) -> list[Item] | None:
    """Return the bundles that `bundle_id` names, or `None` where it is not asked for."""
    if "bundle_id" not in listing.filters:
        return None
    found = await _bundles(seen, await _instances(seen))
    wanted = listing.filters["bundle_id"]
    return [each.item for each in found if not wanted.isdisjoint(_names(each.item))]


def _since(instance: Belonging, bundle: Item) -> datetime | None:
    """Return from when on the bundle was the tenant's by this instance, `None` if it never was."""
    if instance.tenure is None or not _is_of(instance.item, bundle):
        return None
    return instance.tenure.since(bundle.observed_at)


def _is_of(instance: Item, bundle: Item) -> bool:
    name = instance.details.get("bundle_moniker") or instance.details.get("bundle_name")
    return instance.account == bundle.account and name in _names(bundle)


def _names(bundle: Item) -> set[str]:
    return {bundle.id, *bundle.ids.values(), *bundle.aliases}


def _passes(listing: Listing, item: Item) -> bool:
    return (
        listing.passes("provider", item.provider)
        and listing.passes("account", item.account)
        and listing.passes("status", (status_of(item) or "").casefold())
    )


def _meets(listing: Listing, item: Item) -> bool:
    """Whether an instance's time meets the range asked for; one that says no time meets every range."""
    asked = {
        name: datetime.fromisoformat(min(listing.filters[name]))
        for name in ("from", "to")
        if name in listing.filters
    }
    starts, ends = (_instant(item.details.get(name)) for name in ("start_time", "end_time"))
    return not (
        ("from" in asked and ends is not None and ends <= asked["from"])
        or ("to" in asked and starts is not None and starts >= asked["to"])
    )


def _instant(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
