"""Exports of the inventory: bundles, bundle instances and endpoints, as their collections show them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from streams.api.belongings import Belonging, all_belongings
from streams.api.bundles import BUNDLE_FILTERS, INSTANCE_FILTERS, wanted_bundles, wanted_instance
from streams.api.endpoints import FILTERS, wanted_endpoint
from streams.api.export_files import Format, Rows
from streams.api.export_reading import Accounts, Items, Reading
from streams.api.inventory_views import ThingView
from streams.api.listing import Form, Listing, parse_listing
from streams.api.service import Service
from streams.api.visits import Visit, visit_of

_COLUMNS: Final = tuple(ThingView.model_fields)

Find = Callable[[Visit, Listing], AsyncIterator[list[Belonging]]]


def read_bundles(
    service: Service, tenant: str, items: Items, format_: Format, _asked_at: datetime
) -> Reading:
    """Return the rows of `GET /v1/bundles`, all pages of them. Raises `InvalidQuestionError`."""
    return _reading(service, tenant, "bundles", items, BUNDLE_FILTERS, format_, _bundles)


def read_instances(
    service: Service, tenant: str, items: Items, format_: Format, _asked_at: datetime
) -> Reading:
    """Return the rows of `GET /v1/bundle-instances`, all pages of them. Raises `InvalidQuestionError`."""
    return _reading(service, tenant, "bundle-instances", items, INSTANCE_FILTERS, format_, _instances)


def read_endpoints(
    service: Service, tenant: str, items: Items, format_: Format, _asked_at: datetime
) -> Reading:
    """Return the rows of `GET /v1/endpoints`, all pages of them. Raises `InvalidQuestionError`."""
    return _reading(service, tenant, "endpoints", items, FILTERS, format_, _endpoints)


def _reading(
    service: Service,
    tenant: str,
    noun: str,
    items: Items,
    filters: Mapping[str, Form],
    format_: Format,
    find: Find,
) -> Reading:
    listing = parse_listing(tenant, noun, items, filters)

    async def rows() -> AsyncIterator[Rows]:
        seen = await visit_of(service, tenant)
        async with seen.reader.complete():
            async for found in find(seen, listing):
                views = [each.view() for each in found]
                text = _csv(map(_line, views)) if format_ == "csv" else b",\n".join(map(orjson.dumps, views))
                yield Rows(len(views), text)

    return Reading(_nothing, _csv([_COLUMNS]), rows())


def _nothing(_accounts: Accounts) -> dict[str, Any]:
    return {}


async def _bundles(seen: Visit, listing: Listing) -> AsyncIterator[list[Belonging]]:
    yield await wanted_bundles(seen, listing)


async def _instances(seen: Visit, listing: Listing) -> AsyncIterator[list[Belonging]]:
    passes = await wanted_instance(seen, listing)
    async for found in all_belongings(seen, "bundle-instance", passes):
        yield found


def _endpoints(seen: Visit, listing: Listing) -> AsyncIterator[list[Belonging]]:
    return all_belongings(seen, "endpoint", wanted_endpoint(listing))


def _line(view: Mapping[str, Any]) -> list[Any]:
    # What the provider lists in its own words is as JSON in its cell.
    cells = (view[name] for name in _COLUMNS)
    return [orjson.dumps(cell).decode() if isinstance(cell, dict | list) else cell for cell in cells]


def _csv(lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()
