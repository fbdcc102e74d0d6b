"""What a provider says in total, on its way to the reconciliation: added up by tenant, and never counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from connectors.account import Account
from connectors.http import Failure, ProviderError
from connectors.inventory import Inventory
from connectors.publisher import Outgoing, Proceed, Sender, always
from streams.events import MAX_RECORDS, Source, StatedTotal, TotalsEvent, describe
from streams.topics import USAGE_EVENTS
from streams.usage import Service
from streams.windows import window_end

Span = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Total:
    """A provider's total of one UTC day or month: bytes of data or messages of SMS."""

    span: Span
    start: datetime
    service: Service
    amount: int
    sim: str | None = None
    """Canonical ICCID; `None` for a total of the whole account."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How far a provider's totals can be held against what was counted."""

    source: Source
    settle_s: int
    """Seconds after a window's end from which a total that is observed then has to agree."""
    tolerance: int = 0
    """Largest difference of an account's total that rounding explains."""
    covers: bool = False
    """Whether agreement proves that nothing of the window is missing."""


async def state_totals(
    sender: Sender,
    inventory: Inventory,
    account: Account[Any],
    totals: Iterable[Total],
    terms: Terms,
    *,
    observed_at: datetime,
    proceed: Proceed = always,
) -> None:
    """Publish a provider's totals for each tenant of the account.

    Totals of SIMs have to be all of the account's, because they are added up. A SIM's that changed tenants
    within the window cannot be parted, and an account's that has several tenants neither: then nothing is
    said of that window, whose verdict stays `unsupported`.

    Raises `UnavailableError`, and `ProviderError` for a total that no day or month can have.
    """
    sums = by_tenant(totals, account, inventory)
    await sender.send(_outgoing(account, sums, terms, observed_at), proceed)


Window = tuple[Span, datetime, Service]


def by_tenant(
    totals: Iterable[Total], account: Account[Any], inventory: Inventory
) -> dict[str, dict[Window, int]]:
    """Return the totals of each tenant; those of windows that cannot be parted are left out."""
    held, tenants = inventory.of(account.name), inventory.tenants(account)
    sums: dict[str, dict[Window, int]] = {}
    lost: set[Window] = set()
    for total in totals:
        window = (total.span, total.start, total.service)
        if total.sim is None:
            owners = set(tenants)
        else:
            standing = held.standing(total.sim)
            last = window_end(total.start, total.span)
            owners = {
                *(standing.tenant_at(at) or "" for at in (total.start, *standing.changes(total.start, last)))
            }
        if len(owners) != 1:
            lost.add(window)
        for tenant in owners - {""}:
            windows = sums.setdefault(tenant, {})
            windows[window] = windows.get(window, 0) + total.amount
    return {
        tenant: {window: amount for window, amount in windows.items() if window not in lost}
        for tenant, windows in sums.items()
    }


def _outgoing(
    account: Account[Any], sums: dict[str, dict[Window, int]], terms: Terms, observed_at: datetime
) -> Iterator[Outgoing]:
    for tenant, windows in sorted(sums.items()):
        try:
            stated = [
                StatedTotal(granularity=span, start=start, service=service, total=amount)
                for (span, start, service), amount in sorted(windows.items())
            ]
        except ValidationError as error:
            raise ProviderError(
                Failure.PROVIDER, f"{account.settings.provider} states totals of no use: {describe(error)}"
            ) from None
        for at in range(0, len(stated), MAX_RECORDS):
            event = TotalsEvent(
                tenant=tenant,
                account=account.name,
                provider=account.settings.provider,
                source=terms.source,
                observed_at=observed_at,
                settle_s=terms.settle_s,
                tolerance=terms.tolerance,
                covers=terms.covers,
                totals=tuple(stated[at : at + MAX_RECORDS]),
            )
            yield USAGE_EVENTS, event.message()
