"""SIMSY's listings: whose SIMs are, what the inventory gets, and what a refused one holds up."""

from __future__ import annotations

import pytest

from streams.inventory import Item, decode
from streams.topics import INVENTORY
from tests.unit.simsy_fakes import sweeping


async def test_customers_decide_whose_sims_are() -> None:
    """The name of the customer stands in usage and in bundle instances, not in the list of endpoints."""
    async with sweeping(tenant=None, assign=[{"organisation": "Acme", "tenant": "acme"}]) as it:
        await it.sweep()
        assert it.told() == it.truth()
        assert it.sender.dead == []


async def test_the_inventory_gets_sims_endpoints_bundles_and_instances() -> None:
    async with sweeping() as it:
        await it.sweep()
        items = [decode(message.key, message.value) for message in it.sender.on(INVENTORY)]
        kinds = [item.kind for item in items if isinstance(item, Item)]
        before = len(items)
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "sim": 4,
            "endpoint": 4,
            "bundle": 3,
            "bundle-instance": 12,
        }
        it.clock.forward(hours=7)
        await it.sweep()
        assert len(it.sender.on(INVENTORY)) == before, "what has not changed is not said again"


async def test_a_listing_that_is_forbidden_does_not_hold_up_usage(caplog: pytest.LogCaptureFixture) -> None:
    """Bundles are nothing that usage needs."""
    async with sweeping() as it:
        routes = it.simulators.simsy.app.router.routes
        routes[:] = [route for route in routes if "bundle" not in str(route)]
        await it.sweep()
        assert it.told() == it.truth()
    assert "SIMSY's bundles cannot be listed" in caplog.text
