"""The synthetic fleet: three tenants, their SIMs at the providers, and the networks they roam on.

Pure and deterministic: the same seed and size give the same fleet in every process, and a larger fleet
contains the smaller one unchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from random import Random
from typing import Literal

Provider = Literal["emnify", "kore", "onomondo", "simsy"]

EMNIFY_ACCOUNT = "emnify-main"
ONOMONDO_ACCOUNT = "onomondo-main"
SIMS_PER_TENANT_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Network:
    """A mobile network. The first identifier is the one usage is filed under.

    `further_identifiers` exist because one KORE Network resource may hold several MCC-MNC pairs.
    `price_per_mb` is money per 10^6 bytes; four decimals keep a record's cost within the ten decimals
    that emnify's `Decimal(14,10)` can carry.
    """

    mcc: str
    mnc: str
    country: str
    country_name: str
    operator: str
    price_per_mb: Decimal
    further_identifiers: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> str:
        return f"{self.mcc}-{self.mnc}"


NETWORKS = (
    Network("262", "01", "DE", "Germany", "Telekom Deutschland", Decimal("0.0040")),
    Network("262", "02", "DE", "Germany", "Vodafone Germany", Decimal("0.0045")),
    Network("208", "01", "FR", "France", "Orange France", Decimal("0.0061")),
    Network("208", "10", "FR", "France", "SFR", Decimal("0.0058")),
    Network("234", "15", "GB", "United Kingdom", "Vodafone UK", Decimal("0.0072")),
    Network("234", "30", "GB", "United Kingdom", "EE", Decimal("0.0069")),
    Network("310", "410", "US", "United States", "AT&T", Decimal("0.0113"), (("310", "280"),)),
    Network("310", "260", "US", "United States", "T-Mobile USA", Decimal("0.0107")),
    Network("440", "10", "JP", "Japan", "NTT docomo", Decimal("0.0201")),
    Network("232", "01", "AT", "Austria", "A1", Decimal("0.0039")),
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer. emnify knows it as an organisation of one parent account, KORE and SIMSY as an account of
    its own, Onomondo as a tag that its SIMs bear.
    """

    name: str
    organisation_id: int
    kore_account: str | None
    simsy_account: str | None


TENANTS = (
    Tenant("acme", 1001, "kore-acme", "simsy-acme"),
    Tenant("globex", 1002, "kore-globex", None),
    Tenant("initech", 1003, None, "simsy-initech"),
)


@dataclass(frozen=True, slots=True)
class Sim:
    """One SIM. `number` is unique over the fleet; `iccid` has 20 digits, the last being the Luhn digit."""

    number: int
    tenant: Tenant
    provider: Provider
    account: str
    iccid: str
    name: str
    networks: tuple[Network, ...]
    fleet: str
    former_fleet: str
    moved_at: datetime

    @property
    def canonical_iccid(self) -> str:
        """The 19 digits without the Luhn digit, by which simusage knows a SIM."""
        return self.iccid[:-1]

    def fleet_at(self, instant: datetime) -> str:
        """KORE files usage under the fleet that the SIM was in when the usage occurred."""
        return self.fleet if instant >= self.moved_at else self.former_fleet


def luhn_digit(digits: str) -> str:
    """The check digit that makes `digits` plus it pass the Luhn test (ISO/IEC 7812-1)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def seeded(*parts: object) -> bytes:
    """Sixteen bytes that depend on nothing but the parts: not on the process, the platform or call order."""
    return blake2b(":".join(map(str, parts)).encode(), digest_size=16).digest()


def build_fleet(seed: int, sims_per_tenant: int, fleet_move_at: datetime) -> tuple[Sim, ...]:
    """Every SIM of every tenant, in the order of their numbers.

    Tenants with a KORE account have every second SIM there. At `fleet_move_at` every fifth SIM changes its
    fleet, so that membership at the time of usage can be told from membership now.
    """
    return tuple(
        _build_sim(seed, tenant_index, tenant, place, fleet_move_at)
        for tenant_index, tenant in enumerate(TENANTS)
        for place in _places(tenant, sims_per_tenant)
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one SIM of a tenant is; `issuer` begins its ICCID, as in the samples of the documentation."""

    index: int
    provider: Provider
    account: str
    issuer: str


def _places(tenant: Tenant, sims: int) -> Iterator[_Place]:
    """`sims` at emnify and KORE, and a quarter as many besides at each further provider."""
    for index in range(sims):
        if tenant.kore_account is not None and index % 2 == 1:
            yield _Place(index, "kore", tenant.kore_account, "8988307")
        else:
            yield _Place(index, "emnify", EMNIFY_ACCOUNT, "8988303")
    quarter = max(1, sims // 4)
    for index in range(quarter):
        yield _Place(SIMS_PER_TENANT_LIMIT + index, "onomondo", ONOMONDO_ACCOUNT, "8945730")
    if tenant.simsy_account is not None:
        for index in range(quarter):
            yield _Place(2 * SIMS_PER_TENANT_LIMIT + index, "simsy", tenant.simsy_account, "8944000")


def _build_sim(seed: int, tenant_index: int, tenant: Tenant, place: _Place, fleet_move_at: datetime) -> Sim:
    number = (tenant_index + 1) * 1_000_000 + place.index
    random = Random(int.from_bytes(seeded(seed, "sim", number)))
    body = f"{place.issuer}{number:012d}"
    fleets = (f"{tenant.name}-meters", f"{tenant.name}-trackers")
    home = place.index // 2 % len(fleets)
    moves = place.index % 5 == 1
    return Sim(
        number=number,
        tenant=tenant,
        provider=place.provider,
        account=place.account,
        iccid=body + luhn_digit(body),
        name=f"{tenant.name}-device-{place.index:05d}",
        networks=tuple(random.sample(NETWORKS, 4)),
        fleet=fleets[home],
        former_fleet=fleets[1 - home] if moves else fleets[home],
        moved_at=fleet_move_at,
    )
