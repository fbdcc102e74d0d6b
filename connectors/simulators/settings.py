"""Settings of the simulators. Secrets default to well-known demo values: nothing real is behind them."""

from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.simulators.faults import checked_faults
from connectors.simulators.fleet import SIMS_PER_TENANT_LIMIT, TENANTS

_KORE_TENANTS = tuple(tenant.name for tenant in TENANTS if tenant.kore_account)
_SIMSY_TENANTS = tuple(tenant.name for tenant in TENANTS if tenant.simsy_account)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Faults(_Settings):
    """Misbehaviour that a connector must survive: kinds by name, and what the Data Streamer does."""

    on: frozenset[str] = Field(frozenset(), description="names of `faults.FAULTS`, or all")
    duplicate_fraction: float = Field(0.0, ge=0, le=1, description="share of batches delivered twice")
    shuffle: bool = Field(False, description="shuffle the records inside each batch")
    max_retries: int | None = Field(
        None, ge=0, description="retries of one batch before the stream turns to Error(3); none: without end"
    )

    @field_validator("on")
    @classmethod
    def _known(cls, names: frozenset[str]) -> frozenset[str]:
        return checked_faults(names)

    @property
    def duplicates(self) -> float:
        """Share of the Data Streamer's batches that are delivered twice."""
        return max(self.duplicate_fraction, 0.3 if "emnify-duplicates" in self.on else 0.0)

    @property
    def retries(self) -> int | None:
        """Retries of one batch before the stream turns to Error; `None` for no end."""
        return 0 if "emnify-stream-errors" in self.on else self.max_retries

    @property
    def shuffles(self) -> bool:
        """Whether the Data Streamer shuffles the records inside each batch."""
        return self.shuffle or "emnify-shuffle" in self.on


class EmnifySettings(_Settings):
    """The emnify stand-in: one parent account whose organisations are the tenants."""

    application_token: SecretStr = Field(SecretStr("demo-emnify-application-token"), min_length=1)
    token_lifetime_seconds: int = Field(240 * 60, ge=1, description="life of the JWT, in seconds")
    path_limits: bool = Field(True, description="whether single paths have limits too, as emnify documents")
    callback_url: str | None = Field(
        None, description="where usage is pushed to; none: no stream until one is created"
    )
    callback_header: str = Field("X-Callback-Secret", description="name of the static header of each push")
    callback_secret: SecretStr = Field(SecretStr("demo-emnify-callback-secret"))
    batch_size: int = Field(3000, ge=1, le=10_000, description="records in one push; 1 pushes bare objects")
    push_interval_seconds: float = Field(
        1.0, gt=0, description="pause between pushes once history is delivered"
    )
    push_timeout_seconds: float = Field(10.0, gt=0)
    retry_backoff_seconds: float = Field(
        0.5, gt=0, description="wait before the first retry; doubles each time"
    )
    retry_backoff_max_seconds: float = Field(5.0, gt=0)


class KoreClient(_Settings):
    """An API client of one KORE account."""

    client_id: str
    client_secret: SecretStr
    legacy_alignment: bool = Field(False, description="misaligned times are rounded up instead of rejected")
    events_url: str | None = Field(None, description="where Event Streams go; none: there is no sink")
    events_secret: SecretStr = Field(
        SecretStr("demo-kore-events-secret"), description="what signs them; empty: the signature is empty"
    )


class KoreSettings(_Settings):
    """The KORE stand-in: one account for each tenant that has one, keyed by the tenant's name."""

    clients: dict[str, KoreClient] = Field(
        default_factory=lambda: {
            tenant: KoreClient(
                client_id=f"demo-kore-{tenant}", client_secret=SecretStr(f"demo-kore-{tenant}-secret")
            )
            for tenant in _KORE_TENANTS
        }
    )
    token_lifetime_seconds: int = Field(3600, ge=1, description="`expires_in` of a token, in seconds")
    billing_delay: timedelta = Field(
        timedelta(hours=24), ge=timedelta(0), description="from usage to its money"
    )
    late_seconds: float = Field(15.0, ge=0, description="how long late-usage and refiled last")
    events_interval_seconds: float = Field(0.5, gt=0, description="over which events are batched")
    events_timeout_seconds: float = Field(5.0, gt=0)
    events_backoff_seconds: float = Field(0.5, gt=0, description="before the first retry; doubles each time")
    events_retries: int = Field(3, ge=0, description="of one batch, which is lost after them")

    @field_validator("clients")
    @classmethod
    def _one_for_each_account(cls, clients: dict[str, KoreClient]) -> dict[str, KoreClient]:
        if set(clients) != set(_KORE_TENANTS) or len({c.client_id for c in clients.values()}) != len(clients):
            raise ValueError(f"want one client with an id of its own for each of {', '.join(_KORE_TENANTS)}")
        return clients


class OnomondoSettings(_Settings):
    """The Onomondo stand-in: one organisation, whose SIMs bear their tenant's name as a tag."""

    api_token: SecretStr = Field(SecretStr("demo-onomondo-api-token"), min_length=1)
    requests_per_minute: int = Field(600, ge=1, description="of one address, whatever its keys")
    late_seconds: float = Field(15.0, ge=0, description="until the fault late-rows shows a row")
    webhook_url: str | None = Field(None, description="where events are sent to; none: no webhook")
    webhook_token: SecretStr = Field(
        SecretStr("demo-onomondo-webhook-token"), description="last part of that address' path"
    )
    webhook_timeout_seconds: float = Field(1.0, gt=0)
    webhook_backoff_seconds: float = Field(0.5, gt=0, description="wait before an event is sent again")
    breaker_failures: int = Field(5, ge=1, description="failures in a row after which all events wait")
    breaker_seconds: float = Field(5.0, gt=0, description="how long they wait")


class SimsyToken(_Settings):
    """A Cloudflare Access service token, from which SIMSY knows the tenant."""

    client_id: str
    client_secret: SecretStr


class SimsySettings(_Settings):
    """The SIMSY stand-in: a service token for each tenant that has one, keyed by the tenant's name."""

    tokens: dict[str, SimsyToken] = Field(
        default_factory=lambda: {
            tenant: SimsyToken(
                client_id=f"demo-simsy-{tenant}", client_secret=SecretStr(f"demo-simsy-{tenant}-secret")
            )
            for tenant in _SIMSY_TENANTS
        }
    )
    profile: Literal["seed", "worker"] = Field(
        "seed", description="shapes as the documentation shows them, or as the published server has them"
    )
    sync_interval: timedelta = Field(
        timedelta(minutes=30), gt=timedelta(0), description="usage shows at the next multiple of this"
    )
    late_by: timedelta = Field(timedelta(hours=1), gt=timedelta(0), description="delay of simsy-late-rows")
    requests_a_minute: int = Field(100, ge=5, description="limit of each tenant; an export counts 5")

    @field_validator("tokens")
    @classmethod
    def _one_for_each_account(cls, tokens: dict[str, SimsyToken]) -> dict[str, SimsyToken]:
        if set(tokens) != set(_SIMSY_TENANTS) or len({t.client_id for t in tokens.values()}) != len(tokens):
            raise ValueError(f"want one token with an id of its own for each of {', '.join(_SIMSY_TENANTS)}")
        return tokens


class SimulatorSettings(_Settings):
    """Everything `run` needs. Two processes agree on all usage if seed, size, rate and `live_from` agree."""

    seed: int = 1
    sims_per_tenant: int = Field(20, ge=2, le=SIMS_PER_TENANT_LIMIT)
    history_hours: int = Field(72, ge=0, le=24 * 35, description="usage that exists at the start, in hours")
    live_from: AwareDatetime | None = Field(
        None, description="when history ends and dense live usage begins; none: when the process starts"
    )
    live_records_per_second: float = Field(2.0, ge=0, description="usage records of the whole fleet")
    host: str = "127.0.0.1"
    port: int = Field(8900, ge=0, le=65535, description="0 takes a free port, which the log names")
    emnify: EmnifySettings = Field(default_factory=EmnifySettings)
    kore: KoreSettings = Field(default_factory=KoreSettings)
    onomondo: OnomondoSettings = Field(default_factory=OnomondoSettings)
    simsy: SimsySettings = Field(default_factory=SimsySettings)
    faults: Faults = Field(default_factory=Faults)
