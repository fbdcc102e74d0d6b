"""KORE's resources behind their SIDs: accounts, Sims, Fleets and Networks.

A SID is two letters that name the kind and 32 hexadecimal digits.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from connectors.simulators.fleet import NETWORKS, Network, Sim, seeded
from connectors.simulators.settings import KoreClient


def make_sid(kind: str, name: str) -> str:
    return kind + seeded("sid", kind, name).hex()


def network_sid(network: Network) -> str:
    return make_sid("HW", network.code)


NETWORKS_BY_SID = {network_sid(network): network for network in NETWORKS}


@dataclass(frozen=True)
class KoreAccount:
    """One account: what a token of its API client may see, and nothing else."""

    name: str
    client: KoreClient
    sims: tuple[Sim, ...]

    @property
    def sid(self) -> str:
        return make_sid("AC", self.name)

    def sim_sid(self, sim: Sim) -> str:
        return make_sid("HS", sim.iccid)

    def fleet_sid(self, fleet: str) -> str:
        return make_sid("HF", fleet)

    @property
    def fleets(self) -> list[str]:
        return sorted({fleet for sim in self.sims for fleet in (sim.fleet, sim.former_fleet)})

    def find_sim(self, wanted: str) -> Sim | None:
        """By SID or unique name."""
        return next((sim for sim in self.sims if wanted in (self.sim_sid(sim), sim.name)), None)

    def find_fleet(self, wanted: str) -> str | None:
        """By SID or unique name."""
        return next((fleet for fleet in self.fleets if wanted in (self.fleet_sid(fleet), fleet)), None)


class KoreAccounts:
    """All accounts, found by the credentials of their API client or by name."""

    def __init__(self, sims: Iterable[Sim], clients: dict[str, KoreClient]) -> None:
        of_tenant: dict[str, list[Sim]] = {tenant: [] for tenant in clients}
        for sim in sims:
            if sim.provider == "kore":
                of_tenant[sim.tenant.name].append(sim)
        self._accounts = {
            account.name: account
            for tenant, owned in of_tenant.items()
            for account in [KoreAccount(owned[0].account, clients[tenant], tuple(owned))]
        }

    @property
    def names(self) -> list[str]:
        return list(self._accounts)

    def of(self, name: str) -> KoreAccount:
        return self._accounts[name]

    def named(self, name: str) -> KoreAccount | None:
        return self._accounts.get(name)

    def authenticate(self, client_id: str, client_secret: str) -> KoreAccount | None:
        for account in self._accounts.values():
            secret = account.client.client_secret.get_secret_value()
            if account.client.client_id == client_id and hmac.compare_digest(
                secret.encode(), client_secret.encode()
            ):
                return account
        return None
