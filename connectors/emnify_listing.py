"""emnify's listings of SIMs and endpoints, as the inventory takes them."""

from __future__ import annotations

from collections.abc import Iterable

from connectors.emnify_api import EndpointItem, SimItem
from connectors.emnify_cdr import tags_of
from connectors.inventory import Seen
from streams.errors import DataError
from streams.iccid import canonical_iccid


def seen_sims(page: Iterable[SimItem]) -> list[Seen]:
    """Return the SIMs of a page, but none without an ICCID."""
    found = []
    for item in page:
        sim, owner, endpoint = sim_of(item.iccid), item.customer_org, item.endpoint
        if sim is None:
            continue
        names = tuple(str(each) for each in ((owner.id, owner.name) if owner else ()) if each is not None)
        ids = {"id": str(item.id)} | ({"endpoint": str(endpoint.id)} if endpoint else {})
        tags = tags_of(endpoint.tags if endpoint else None)
        found.append(Seen("sim", sim, ids=ids, eid=item.eid, organisations=names, tags=tags))
    return found


def seen_endpoints(page: Iterable[EndpointItem]) -> list[Seen]:
    """Return the endpoints of a page, those without a SIM too."""
    return [
        Seen(
            "endpoint",
            str(item.id),
            sim=sim_of(item.sim.iccid) if item.sim else None,
            details={"name": item.name, "status": item.status.description if item.status else None},
            tags=tags_of(item.tags),
        )
        for item in page
    ]


def sim_of(iccid: str) -> str | None:
    """Return the canonical ICCID, or `None` for what is none."""
    try:
        return canonical_iccid(iccid)
    except DataError:
        return None
