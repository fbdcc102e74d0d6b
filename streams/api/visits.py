"""What the routes over the inventory share: a page of a collection, one thing by its name, whose accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from streams.api.faults import Fault, InvalidQuestionError, shown
from streams.api.inventory_reader import InventoryReader
from streams.api.inventory_views import Held
from streams.api.listing import Form, Listing, parse_listing
from streams.api.next_link import next_link
from streams.api.parameters import gathered, unexpected
from streams.api.problems import AmbiguousError, UnknownError
from streams.api.service import Service, answer
from streams.inventory import Item


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of one tenant over the inventory, and its accounts' providers."""

    tenant: str
    reader: InventoryReader
    providers: Mapping[str, str]
    whole: frozenset[str]
    """Accounts whose things are all the tenant's, those without a SIM too."""


async def visit(request: Request, service: Service) -> Visit:
    """Return who asks and what there is to read. Raises `UnauthenticatedError`, `UnavailableError`."""
    return await visit_of(service, service.tenant(request))


async def visit_of(service: Service, tenant: str) -> Visit:
    """Return what there is to read for a tenant. Raises `UnavailableError`."""
    now = service.clock()
    providers = {name: each.provider for name, each in (await service.accounts(tenant)).items()}
    whole = frozenset(
        name
        for name, table in service.settings.accounts.items()
        if table.get("tenant") == tenant and not table.get("assign")
    )
    return Visit(tenant, InventoryReader(service.redis, tenant, now), providers, whole)


async def listed(
    request: Request, service: Service, things: str, filters: Mapping[str, Form]
) -> tuple[Visit, Listing]:
    """Return who asks for a page of things, and for which. Raises as `visit` and `parse_listing` do."""
    seen = await visit(request, service)
    return seen, parse_listing(seen.tenant, things, request.query_params.multi_items(), filters)


def collection(
    request: Request,
    name: str,
    listing: Listing,
    found: Sequence[tuple[tuple[str, str], dict[str, Any]]],
) -> Response:
    """Return a page of places and views: one more than the limit means that more follow."""
    page = found[: listing.limit]
    cursor = listing.cursor(page[-1][0]) if len(found) > len(page) else None
    response = answer({name: [view for _, view in page], "next": cursor})
    if cursor is not None:
        response.headers.update(next_link(request, cursor))
    return response


def wanted_account(request: Request) -> str | None:
    """Return the one parameter of a question for one thing. Raises `InvalidQuestionError`."""
    given = gathered(request.query_params.multi_items())
    if faults := unexpected(given, ("account",), frozenset()):
        raise InvalidQuestionError(faults)
    return given["account"][0] if "account" in given else None


async def named_sim(seen: Visit, name: str, account: str | None) -> Held:
    """Return the one SIM of the tenant that goes by a name. Raises `UnknownError`, `AmbiguousError`."""
    found = [
        held for held in await seen.reader.called(name, seen.providers) if account in (None, held.account)
    ]
    if not found:
        raise _unknown("SIM", name, account)
    if len(found) > 1:
        raise _ambiguous("SIM", [(held.account, held.sim) for held in found])
    return found[0]


def only_thing(noun: str, found: Sequence[Item], name: str, account: str | None) -> Item:
    """Return the one thing that was found by a name. Raises `UnknownError`, `AmbiguousError`."""
    if not found:
        raise _unknown(noun, name, account)
    if len(found) > 1:
        raise _ambiguous(noun, [(item.account, item.id) for item in found])
    return found[0]


def _unknown(noun: str, name: str, account: str | None) -> UnknownError:
    """Return the error of what the tenant has not: the same, whether or not another tenant has it."""
    rule, remedy = f"a name of one {noun} of this tenant", f"GET /v1/{noun.lower()}s lists them"
    if account is not None:
        rule, remedy = f"{rule}, in account {shown(account)}", f"{remedy}; or leave account out"
    return UnknownError(
        f"No {noun} of this tenant goes by this name.", [Fault("name", "unknown", rule, shown(name), remedy)]
    )


def _ambiguous(noun: str, places: Sequence[tuple[str, str]]) -> AmbiguousError:
    named = ", ".join(f"{id_} of {account}" for account, id_ in places[:10])
    if len({id_ for _, id_ in places}) == 1:
        remedy = f"account={places[0][0]}"
    else:
        remedy = f"{places[0][1]} in place of the name"
    return AmbiguousError(
        [Fault("name", "ambiguous", f"a name of one {noun} alone, or its account", named, remedy)]
    )
