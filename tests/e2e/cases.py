"""The accounts that the end-to-end tests of the faults run with: each provider, by each way that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from connectors.registry import callback_url
from connectors.simulators.faults import FAULTS
from connectors.simulators.fleet import EMNIFY_ACCOUNT, ONOMONDO_ACCOUNT, TENANTS
from tests.e2e.truth import DIMENSIONS, Place, Totals, sums
from tests.integration.connector_kit import (
    emnify_table,
    kore_table,
    onomondo_table,
    secret_file,
    simsy_table,
)

Rows = dict[Place, Totals]
Table = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """Where an account of a case runs."""

    folder: Path
    simulators: str
    public_url: str
    """Address of the receiver."""

    def callback(self, account: str) -> str:
        """Return where an account's callbacks go."""
        return callback_url(self.public_url, account)


def everything(rows: Rows) -> Rows:
    """Most accounts can tell all of the truth."""
    return rows


def volumes(rows: Rows) -> Rows:
    """Leave out what a source does not tell, as money and how many statements there were.

    A session's last event says of its hour that nothing was used, which the truth does not mention.
    """
    return {
        place: replace(row, records=0, billed_bytes=None, cost={}, status=None)
        for place, row in rows.items()
        if row.total_bytes or row.messages
    }


def of_days(rows: Rows) -> Rows:
    """Statistics know neither hours nor networks, and count in the first hour of their day."""
    days: dict[Place, list[Totals]] = {}
    for (hour, *place), row in rows.items():
        days.setdefault((f"{hour[:10]}T00:00:00Z", *place), []).append(row)
    return volumes({place: sums(parts) for place, parts in days.items()})


def of_all_time(rows: Rows) -> Rows:
    """What makes up for a lost event is told in the hour of the session's next one."""
    places: dict[Place, list[Totals]] = {}
    for (_, *place), row in rows.items():
        places.setdefault(("", *place), []).append(row)
    return volumes({place: sums(parts) for place, parts in places.items()})


@dataclass(frozen=True)
class Tried:
    """An account under test, and how much of the truth it can tell."""

    name: str
    simulated: str
    """Its name in the truth."""
    table: Callable[[Ground, Self], Table]
    dimensions: tuple[str, ...] = DIMENSIONS
    told: Callable[[Rows], Rows] = everything
    whose: str | None = None
    """The one tenant that all of it is for; `None` where each has its own."""

    @property
    def tenants(self) -> dict[str, str]:
        """The account's own tenants, by their names at the simulators."""
        return {tenant.name: f"{self.name}-{self.whose or tenant.name}" for tenant in TENANTS}


@dataclass(frozen=True)
class Case:
    """Accounts at one simulator, and what is done to them."""

    name: str
    provider: str
    tried: tuple[Tried, ...]
    settings: Callable[[Ground, tuple[Tried, ...]], Table]
    """What the simulator's settings say besides."""
    stride: int
    """Requests and pushes between two kills, at most."""
    kills: int = 3
    without: frozenset[str] = frozenset()
    """Faults after which nobody can know what was used, or which another case is tried with."""

    def __str__(self) -> str:
        return self.name

    @property
    def accounts(self) -> tuple[Tried, ...]:
        """The accounts, under names that no other case has."""
        return tuple(replace(each, name=f"{self.name}-{each.name}") for each in self.tried)

    @property
    def faults(self) -> list[str]:
        """All faults of the provider but those."""
        return [name for name in FAULTS if name.startswith(f"{self.provider}-") and name not in self.without]


def _emnify(ground: Ground, tried: Tried, **changes: Any) -> Table:
    owners = {str(tenant.organisation_id): tried.tenants[tenant.name] for tenant in TENANTS}
    quick = {"restart_stream": True, "reconcile_interval_s": 5, "poll_interval_s": 0.5}
    return emnify_table(ground.folder, ground.simulators, owners, **quick | changes)


def _kore(ground: Ground, tried: Tried, **changes: Any) -> Table:
    tenant = tried.simulated.removeprefix("kore-")
    client = {
        "client_id": f"demo-{tried.simulated}",
        "client_secret": secret_file(ground.folder, f"demo-{tried.simulated}-secret"),
        "callback_secrets": [secret_file(ground.folder, "demo-kore-events-secret")],
    }
    quick = {"chunk_hours": 100, "reconcile_interval_s": 5}
    return kore_table(ground.folder, ground.simulators, tried.tenants[tenant], **client | quick | changes)


def _onomondo(ground: Ground, tried: Tried, **changes: Any) -> Table:
    owners = {} if tried.whose else tried.tenants
    return onomondo_table(ground.folder, ground.simulators, owners, **{"page_size": 100} | changes)


def _simsy(ground: Ground, tried: Tried) -> Table:
    tenant = tried.simulated.removeprefix("simsy-")
    client = {
        "client_id": f"demo-{tried.simulated}",
        "client_secret": secret_file(ground.folder, f"demo-{tried.simulated}-secret"),
    }
    return simsy_table(ground.folder, ground.simulators, tried.tenants[tenant], delivery_lag_s=10, **client)


def _streamed(ground: Ground, accounts: tuple[Tried, ...]) -> Table:
    return {"emnify": {"callback_url": ground.callback(accounts[0].name), "batch_size": 40}}


def _with_events(ground: Ground, accounts: tuple[Tried, ...]) -> Table:
    """KORE tries a batch four times, so the waits between have to outlast the start of a connector."""
    clients = {
        each.simulated.removeprefix("kore-"): {
            "client_id": f"demo-{each.simulated}",
            "client_secret": secret_file(ground.folder, f"demo-{each.simulated}-secret"),
            "events_url": ground.callback(each.name),
        }
        for each in accounts
    }
    return {"kore": {"late_seconds": 5, "events_backoff_seconds": 2, "clients": clients}}


def _with_webhook(ground: Ground, accounts: tuple[Tried, ...]) -> Table:
    address = ground.callback(accounts[0].name)
    return {"onomondo": {"late_seconds": 5, "breaker_seconds": 1, "webhook_url": address}}


def _since_webhook(ground: Ground, accounts: tuple[Tried, ...]) -> Table:
    """A webhook tells nothing of the past: usage begins with it, on an hour, so that no cell is told half."""
    begun = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    live = {"history_hours": 0, "live_from": f"{begun:%Y-%m-%dT%H:%M:%SZ}", "live_records_per_second": 2}
    return live | _with_webhook(ground, accounts)


def _synced(_ground: Ground, _accounts: tuple[Tried, ...]) -> Table:
    return {"simsy": {"sync_interval": 1, "late_by": 5}}


EMNIFY_PUSHED: Final = Tried("pushed", EMNIFY_ACCOUNT, _emnify)
EMNIFY_POLLED: Final = Tried(
    "polled",
    EMNIFY_ACCOUNT,
    lambda ground, tried: _emnify(ground, tried, source="poll", minutes=True),
    dimensions=("provider", "sim"),
    told=of_days,
)
KORE_POLLED: Final = Tried("polled", "kore-acme", _kore)
KORE_PUSHED: Final = Tried(
    "pushed",
    "kore-globex",
    lambda ground, tried: _kore(ground, tried, source="push"),
    told=volumes,
)
ONOMONDO_POLLED: Final = Tried("polled", ONOMONDO_ACCOUNT, _onomondo)
ONOMONDO_PUSHED: Final = Tried(
    "pushed", ONOMONDO_ACCOUNT, lambda ground, tried: _onomondo(ground, tried, source="push")
)
ONOMONDO_OWNED: Final = Tried(
    "owned",
    ONOMONDO_ACCOUNT,
    lambda ground, tried: _onomondo(ground, tried, tenant=tried.tenants["acme"]),
    whose="one",
)
SIMSY: Final = (Tried("one", "simsy-acme", _simsy), Tried("other", "simsy-initech", _simsy))

DISCARD: Final = "onomondo-webhook-discard"

CASES: Final = (
    # The limits are of one organisation, so these two do not ask at once.
    Case("emnify", "emnify", (EMNIFY_PUSHED,), _streamed, stride=60),
    Case("emnify-polled", "emnify", (EMNIFY_POLLED,), _streamed, stride=60, kills=2),
    # What is lost of a session without a cumulative volume is told nowhere else.
    Case(
        "kore",
        "kore",
        (KORE_POLLED, KORE_PUSHED),
        _with_events,
        stride=60,
        without=frozenset({"kore-events-lost"}),
    ),
    Case(
        "kore-lossy",
        "kore",
        (KORE_POLLED, replace(KORE_PUSHED, told=of_all_time)),
        _with_events,
        stride=60,
        kills=1,
        without=frozenset({"kore-events-delta-only"}),
    ),
    # An SMS that Onomondo gives up while nobody listens is told nowhere else.
    Case(
        "onomondo",
        "onomondo",
        (ONOMONDO_POLLED,),
        _with_webhook,
        stride=60,
        without=frozenset({DISCARD}),
    ),
    Case(
        "onomondo-pushed",
        "onomondo",
        (ONOMONDO_PUSHED,),
        _since_webhook,
        stride=60,
        without=frozenset({DISCARD, "onomondo-webhook-lost"}),
    ),
    Case(
        "onomondo-unbroken",
        "onomondo",
        (ONOMONDO_OWNED,),
        _with_webhook,
        stride=60,
        kills=0,
    ),
    Case("simsy", "simsy", SIMSY, _synced, stride=8, without=frozenset({"simsy-worker"})),
    Case("simsy-server", "simsy", SIMSY, _synced, stride=8, kills=1),
)
