"""The configuration: one TOML file plus `SIMUSAGE_...` environment variables, checked at start.

Environment variables name a key by its path with double underscores: `SIMUSAGE_KAFKA__BOOTSTRAP`.
The accounts' own tables are checked by the provider modules, which alone know their keys.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import ConfigError
from streams.usage import AccountName, TenantName

_ENV_REFERENCE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")


def _resolve_secret(value: object) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("want ${NAME} or file:PATH")
    if match := _ENV_REFERENCE.match(value):
        found = os.environ.get(match[1])
        if not found:
            raise ValueError(f"environment variable {match[1]} is not set")
        return SecretStr(found)
    if value.startswith("file:"):
        try:
            return SecretStr(Path(value[5:]).read_text(encoding="utf-8").strip())
        except OSError as error:
            raise ValueError(f"cannot read {value[5:]}: {error.strerror}") from None
    raise ValueError("a secret is never written here: use ${NAME} for an environment variable or file:PATH")


def _resolve_address(value: object) -> object:
    if isinstance(value, str) and re.match(r"^(redis|rediss|unix)://[^@]*$", value):
        return SecretStr(value)
    return _resolve_secret(value)


Secret = Annotated[SecretStr, BeforeValidator(_resolve_secret)]
"""A secret by reference; its value is never printed."""

SecretAddress = Annotated[SecretStr, BeforeValidator(_resolve_address)]
"""An address that may stand in the clear unless it carries a password."""


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secure_url(url: str, *, allow_plain: bool) -> str:
    """Return the URL without a trailing slash; refuse plain http outside loopback unless allowed."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"want an http(s) URL, got {url!r}")
    if parts.scheme == "http" and not allow_plain and not is_loopback(parts.hostname):
        raise ValueError(f"{url!r} is plain http outside loopback: use https, or set allow_plain_http = true")
    return url.rstrip("/")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class KafkaSettings(_Table):
    """The broker."""

    bootstrap: str = "127.0.0.1:9092"
    """Comma-separated host:port of the brokers."""
    partitions: Annotated[int, Field(ge=1, le=1024)] = 8
    """Partitions of the keyed topics; four or more for each worker that may ever run."""
    replication: Annotated[int, Field(ge=1, le=9)] = 1
    """Replication factor of every topic; 3 in production."""
    idempotent_producer: bool = True
    """Off only for the embedded broker, which cannot give out producer ids; the ledger dedupes anyway."""


class RedisSettings(_Table):
    """The read model."""

    url: SecretAddress = SecretStr("redis://127.0.0.1:6379/0")
    """A URL; one that carries a password must come by reference (`${NAME}` or `file:PATH`)."""


class RetentionSettings(_Table):
    """How long things are kept."""

    horizon_days: Annotated[int, Field(ge=2, le=550)] = 35
    """Correction horizon in days: an older statement is dead-lettered as beyond-horizon."""
    aggregate_months: Annotated[int, Field(ge=1, le=120)] = 18
    """Months for which hours, days and months can be queried."""
    statement_days: Annotated[int, Field(ge=0, le=558)] = 0
    """Days for which events and single statements are kept, more than the horizon; 0: a week more."""

    @property
    def statements(self) -> int:
        """Days for which events and single statements are kept."""
        return self.statement_days or self.horizon_days + 7

    @model_validator(mode="after")
    def _corrected_while_kept(self) -> Self:
        if self.statements <= self.horizon_days:
            raise ValueError(
                f"statement_days = {self.statement_days} is not more than horizon_days = {self.horizon_days}:"
                " a statement is kept for longer than it may be corrected"
            )
        return self


class WorkerSettings(_Table):
    """The stream worker."""

    group: str = "simusage-worker"
    """Consumer group and prefix of the changelog topics."""
    flush_ms: Annotated[int, Field(ge=1, le=5000)] = 20
    """Milliseconds from an event to the flush that publishes it; longer behind a backlog."""
    flush_records: Annotated[int, Field(ge=1, le=1_000_000)] = 200_000
    """Records that a flush gathers behind a backlog, for at most two seconds."""
    session_timeout_s: Annotated[float, Field(ge=1, le=300)] = 30.0
    """Seconds without heartbeat after which the group gives a dead worker's partitions away."""
    stall_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Seconds without progress, though events wait or a recovery is on, after which a worker ends itself."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Where `/livez` and `/readyz` of this worker answer; without it a worker has no address."""


class ArchiveSettings(_Table):
    """Single statements, for `/v1/usage/records` and `/v1/explain`."""

    enabled: bool = True
    """Whether they are kept in Redis, by `simusage archive`: some 10 to 40 bytes each."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Where `/livez` and `/readyz` of this role answer; without it the role has no address."""


class TokenSettings(_Table):
    """A credential of the query endpoint, bound to one tenant: a bearer token, a header pair, or both."""

    tenant: TenantName
    bearer: Secret | None = None
    client_id: str | None = None
    """Value of CF-Access-Client-Id."""
    client_secret: Secret | None = None
    """Value of CF-Access-Client-Secret."""
    ops: bool = False
    """Whether this credential may also look at `/ops`, which shows all accounts of all tenants."""


class LimitSettings(_Table):
    """How much the query endpoint takes in any 60 seconds; it answers 429 beyond."""

    per_minute: Annotated[int, Field(ge=5)] = 100
    """Requests of a tenant, by whatever credentials; an export counts as five."""
    tenants: dict[TenantName, Annotated[int, Field(ge=5)]] = {}
    """Other numbers for single tenants: `tenants = { acme = 600 }`."""
    failures_per_minute: Annotated[int, Field(ge=1)] = 20
    """Failed authentications of an address (of a /64 network, where it is IPv6) that are answered 401."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed: `["10.0.0.0/8"]`."""


class ServeSettings(_Table):
    """The query endpoint."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    tokens: tuple[TokenSettings, ...] = ()
    """Credentials beside those of `simusage token create`, one entry for each; see below."""
    limits: LimitSettings = LimitSettings()
    export_file_mb: Annotated[int, Field(ge=1, le=1024)] = 32
    """Largest file of an export, in MiB of Redis memory for an hour; one MiB holds some 10 MiB of CSV."""
    exports_kept: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Most exports of a tenant that wait, run, or lie there as a file at a time."""


class CallbackSettings(_Table):
    """The receiver of the providers' data streams."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    public_url: str = "http://127.0.0.1:8081"
    """Address under which the providers reach the receiver (TLS ends in front of it)."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Largest accepted body; 3000 emnify records are about 3 MB."""
    allow_plain_http: bool = False
    """Whether public_url may be plain http outside loopback."""


class Settings(BaseSettings):
    """Everything that the roles share, and each role's own table."""

    model_config = SettingsConfigDict(
        env_prefix="SIMUSAGE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    tenants: tuple[TenantName, ...] = ()
    """Every tenant that may own usage; a record for another one is dead-lettered as unknown-tenant."""
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    retention: RetentionSettings = RetentionSettings()
    worker: WorkerSettings = WorkerSettings()
    archive: ArchiveSettings = ArchiveSettings()
    serve: ServeSettings = ServeSettings()
    callbacks: CallbackSettings = CallbackSettings()
    accounts: dict[AccountName, dict[str, Any]] = {}
    """One table an account; its keys are the provider module's."""

    @property
    def redis_url(self) -> str:
        """The Redis URL in the clear, for the client alone."""
        return self.redis.url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content comes in as init values."""
        return env_settings, init_settings


def load_settings(path: Path | None) -> Settings:
    """Read and check the configuration. Raises `ConfigError` naming the key, the value and the remedy."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                "--config", str(path), "no such file; see config/simusage.example.toml"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError("--config", str(path), f"cannot be read as TOML: {error}") from None
    try:
        return Settings(**values)
    except ValidationError as error:
        raise config_error(error) from None


def config_error(error: ValidationError, prefix: str = "") -> ConfigError:
    """Turn the first validation error into one that names the key and what would do."""
    first = error.errors(include_url=False)[0]
    key = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
    got = first["input"]
    if first["type"] == "extra_forbidden":
        return ConfigError(key, "an unknown key", "remove it or correct its spelling")
    shown = got if isinstance(got, bool | int | float) or (isinstance(got, str) and len(got) < 80) else "…"
    if "secret" in key or "token" in key or "bearer" in key or key == "redis.url":
        shown = "(hidden)"
    return ConfigError(key, shown, first["msg"].removeprefix("Value error, "))
