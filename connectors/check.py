"""`simusage check`: tries the configuration, Kafka, Redis and the credentials of each account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

from connectors.budget import LocalBuckets
from connectors.http import Failure, HttpClient, ProviderError
from connectors.parts import connect_redis, public_address
from connectors.registry import Registered, load_accounts, utc_now
from streams.api.ops import read_statuses
from streams.connector_status import ConnectorStatus
from streams.errors import ConfigError, UnavailableError
from streams.kafka import unreachable
from streams.settings import Settings

_KAFKA_S: Final = 10.0

_REMEDIES: Final = {
    Failure.CONFIG: "correct the account's addresses and secrets",
    Failure.TRANSIENT: "try again later; if it stays so, check the address and the way to it",
    Failure.PROVIDER: "ask the provider, or correct the account's addresses",
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found, in plain words and without secrets."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


async def check(settings: Settings) -> list[CheckResult]:
    """Try everything that the configuration names; changes nothing anywhere."""
    redis, told = await _redis(settings)
    results = [await _kafka(settings), redis]
    try:
        public_url = public_address(settings.callbacks)
        accounts = load_accounts(settings)
    except ConfigError as error:
        return [
            CheckResult("configuration", False, f"{error.key}: got {error.got!r}", error.remedy),
            *results,
        ]
    found = f"{len(accounts)} accounts, {len(settings.tenants)} tenants"
    http, buckets = HttpClient(), LocalBuckets()
    try:
        tried = await asyncio.gather(
            *(_account(entry, http.within(entry.budget(buckets)), public_url) for entry in accounts)
        )
    finally:
        await http.close()
    heard = [replace(result, detail=f"{result.detail}; {_heard(told, result.name)}") for result in tried]
    return [CheckResult("configuration", True, found), *results, *heard]


async def _kafka(settings: Settings) -> CheckResult:
    client = AIOKafkaClient(bootstrap_servers=settings.kafka.bootstrap, request_timeout_ms=5000)
    try:
        async with asyncio.timeout(_KAFKA_S):
            await client.bootstrap()
        brokers = len(client.cluster.brokers())
    except (KafkaError, OSError, ValueError) as error:
        problem = unreachable(settings, error)
        return CheckResult("kafka", False, f"{problem.key}: got {problem.got!r}", problem.remedy)
    finally:
        await client.close()
    return CheckResult(
        "kafka",
        True,
        f"{brokers} {'broker answers' if brokers == 1 else 'brokers answer'} at {settings.kafka.bootstrap}",
    )


async def _redis(settings: Settings) -> tuple[CheckResult, dict[str, ConnectorStatus]]:
    """Try Redis; returns what the connectors last said there too."""
    try:
        redis = await connect_redis(settings)
    except ConfigError as error:
        return CheckResult("redis", False, f"{error.key}: got {error.got!r}", error.remedy), {}
    try:
        told = await read_statuses(redis)
    except UnavailableError as error:
        return CheckResult("redis", False, f"redis.url: {error}", "start it again, or correct it"), {}
    finally:
        await redis.aclose()
    return CheckResult("redis", True, "answers"), told


def _heard(told: Mapping[str, ConnectorStatus], name: str) -> str:
    status = told.get(name.removeprefix("accounts."))
    if status is None:
        return "no connector has spoken of it yet"
    seconds = (utc_now() - status.at).total_seconds()
    return f"its connector was {status.state} {seconds:.0f} s ago"


async def _account(entry: Registered, http: HttpClient, public_url: str) -> CheckResult:
    name = f"accounts.{entry.account.name}"
    try:
        return CheckResult(name, True, await entry.provider.check(entry.account, http, public_url))
    except ProviderError as error:
        return CheckResult(name, False, str(error), _REMEDIES[error.failure])
