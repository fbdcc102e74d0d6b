"""SIMSY's tenants behind their service tokens: endpoints, bundles, bundle instances."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from connectors.simulators.fleet import Sim, seeded
from connectors.simulators.settings import SimsyToken

BUNDLE_TERM = timedelta(days=30)
MIB = 2**20


def make_id(kind: str, name: object) -> str:
    return str(UUID(bytes=seeded("simsy", kind, name), version=4))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A tariff that a tenant may buy; `allowance_mb` counts in binary megabytes."""

    moniker: str
    name: str
    price: Decimal
    allowance_mb: int
    status: str

    @property
    def id(self) -> str:
        return make_id("bundle", self.moniker)


BUNDLES = (
    Bundle("b-1gb-eu", "1GB EU", Decimal("4.0000"), 1024, "Active"),
    Bundle("b-500mb-world", "500MB World", Decimal("6.5000"), 500, "Expiring"),
    Bundle("b-100mb-2019", "100MB 2019", Decimal("1.2000"), 100, "Expired"),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One term of a bundle on a SIM, the `sequence`-th of `sequence_max`."""

    sim: Sim
    bundle: Bundle
    sequence: int
    sequence_max: int
    start: datetime

    @property
    def id(self) -> str:
        return make_id("instance", f"{self.sim.number}.{self.sequence}")

    @property
    def end(self) -> datetime:
        return self.start + BUNDLE_TERM

    def status_at(self, now: datetime) -> str:
        return "Completed" if self.end <= now else "Active" if self.start <= now else "Pending"


@dataclass(frozen=True)
class SimsyAccount:
    """What one service token may see, and nothing else."""

    name: str
    title: str
    token: SimsyToken
    sims: tuple[Sim, ...]
    began_at: datetime
    """When the second term of every SIM's bundle begins."""

    def endpoint_id(self, sim: Sim) -> str:
        return make_id("endpoint", sim.number)

    def find_endpoint(self, wanted: str) -> Sim | None:
        return next((sim for sim in self.sims if wanted == self.endpoint_id(sim)), None)

    def instances(self) -> list[Instance]:
        return [instance for sim in self.sims for instance in self.terms(sim)]

    def terms(self, sim: Sim) -> list[Instance]:
        """Three terms of a SIM's bundle: one over, one running, one to come."""
        bundle = BUNDLES[sim.number % 2]
        return [
            Instance(sim, bundle, number, 3, self.began_at + (number - 2) * BUNDLE_TERM)
            for number in (1, 2, 3)
        ]

    def instance_at(self, sim: Sim, instant: datetime) -> Instance | None:
        return next((each for each in self.terms(sim) if each.start <= instant < each.end), None)


class SimsyAccounts:
    """All accounts, found by the header pair of their service token."""

    def __init__(self, sims: Iterable[Sim], tokens: dict[str, SimsyToken], began_at: datetime) -> None:
        of_tenant: dict[str, list[Sim]] = {tenant: [] for tenant in tokens}
        for sim in sims:
            if sim.provider == "simsy":
                of_tenant[sim.tenant.name].append(sim)
        self.all = [
            SimsyAccount(owned[0].account, tenant.capitalize(), tokens[tenant], tuple(owned), began_at)
            for tenant, owned in of_tenant.items()
        ]

    def authenticate(self, client_id: str, client_secret: str) -> SimsyAccount | None:
        for account in self.all:
            secret = account.token.client_secret.get_secret_value()
            if account.token.client_id == client_id and hmac.compare_digest(
                secret.encode(), client_secret.encode()
            ):
                return account
        return None


def bundle_row(bundle: Bundle) -> dict[str, Any]:
    return {
        "id": bundle.id,
        "bundle_id": bundle.moniker,
        "bundle_name": bundle.name,
        "bundle_moniker": bundle.moniker,
        "price": str(bundle.price),
        "currency": "GBP",
        "formatted_price": f"£{bundle.price:.2f}",
        "allowance": str(bundle.allowance_mb * MIB),
        "allowance_moniker": f"{bundle.allowance_mb}MB",
        "bundle_type_name": "Data",
        "offer_type_name": "Recurring",
        "status_name": bundle.status,
        "effective_from": "2021-01-01T00:00:00.000Z",
        "effective_to": None,
    }
