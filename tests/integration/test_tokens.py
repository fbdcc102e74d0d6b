"""Tokens on a real broker and Redis: made and revoked by the command line while replicas answer."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr
from redis.asyncio import Redis

from connectors.demo.embedded import free_port
from connectors.token_copy import TokenContent
from connectors.tokens import keep, known
from connectors.topic_copy import TopicCopy
from streams import keys
from streams.api.app import create_app
from streams.kafka import ensure_topics
from streams.settings import RedisSettings, ServeSettings, Settings, TokenSettings
from streams.tokens import Scope, bearer, mint
from tests.integration.api_kit import ReadModel, cell, client_of, rows_of
from tests.integration.connector_kit import Fleet, Names, connecting, kore_table, settings_of, simulators
from tests.waiting import wait_until

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
ASK = "/v1/usage?granularity=all"
TENANTS = ["acme", "zebra"]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
async def settings(kafka_bootstrap: str, redis_url: str, redis: Redis) -> Settings:
    """A configuration without tokens, over a complete read model."""
    made = settings_of(kafka_bootstrap, redis_url, TENANTS, {})
    await ensure_topics(made)
    model = ReadModel(redis)
    await model.complete()
    await model.put("acme", [("2026-11-20T01:00", cell(0, 5))])
    await model.put("zebra", [("2026-11-20T01:00", cell(1, 777))])
    return made


@asynccontextmanager
async def copying(settings: Settings, redis: Redis) -> AsyncIterator[None]:
    """The copy, kept for the length of a block, once it is complete."""

    def consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap, enable_auto_commit=False)

    stop = asyncio.Event()
    task = asyncio.create_task(TopicCopy(redis, consumer, TokenContent()).run(stop))
    try:
        await wait_until(lambda: complete(redis), timeout=30, description="the copy of the tokens")
        yield
    finally:
        stop.set()
        await task


async def complete(redis: Redis) -> bool:
    return await redis.hget(keys.TOKENS_COPY, "complete") == b"1"


@dataclass
class Replicas:
    """Two instances of the endpoint over one Redis, at an instant that a test may move."""

    settings: Settings
    redis: Redis
    now: datetime = NOW
    apps: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.apps = [create_app(self.settings, self.redis, clock=lambda: self.now) for _ in range(2)]

    async def ask(self, headers: dict[str, str], path: str = ASK) -> httpx.Response:
        """Return the answer of both, having seen that they agree."""
        answers = []
        for app in self.apps:
            async with client_of(app, headers) as api:
                answers.append(await api.get(path))
        first, second = answers
        assert first.status_code == second.status_code
        return first

    async def status(self, headers: dict[str, str], path: str = ASK) -> int:
        return (await self.ask(headers, path)).status_code


async def made(
    settings: Settings,
    tenant: str = "acme",
    scopes: tuple[Scope, ...] = ("read",),
    expires_at: datetime | None = None,
) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return id, bearer header and header pair of a new token."""
    token, secret = mint(tenant, "test", scopes, NOW, expires_at)
    await keep(settings, token)
    pair = {"CF-Access-Client-Id": token.id, "CF-Access-Client-Secret": secret}
    return token.id, {"Authorization": f"Bearer {bearer(token, secret)}"}, pair


async def command(settings: Settings, folder: Path, *words: str) -> tuple[int, str, str]:
    """Run `simusage token ...`; returns the exit code and both outputs."""
    config = folder / "simusage.toml"
    config.write_text(
        f"tenants = {TENANTS}\nkafka.bootstrap = '{settings.kafka.bootstrap}'\n"
        f"kafka.idempotent_producer = false\nredis.url = '{settings.redis_url}'\n"
        f"kafka.partitions = {settings.kafka.partitions}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simusage", "token", *words, "--config", str(config), "--log-json"),
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def shown(output: str) -> dict[str, str]:
    """Return the headers that `create` shows."""
    return dict(re.findall(r"^  ([\w-]+): (.+)$", output, re.MULTILINE))


async def test_a_token_shows_its_tenant_and_nothing_else(settings: Settings, redis: Redis) -> None:
    """As bearer token and as header pair; half of it, another's half, or two tenants' are nobody's."""
    async with copying(settings, redis):
        _, own, own_pair = await made(settings)
        _, theirs, their_pair = await made(settings, "zebra")
        replicas = Replicas(settings, redis)
        for headers, tenant, total in ((own, "acme", 5), (own_pair, "acme", 5), (theirs, "zebra", 777)):
            answer = await replicas.ask(headers)
            assert answer.json()["tenant"] == tenant
            assert [row["data"]["total_bytes"] for row in rows_of(answer)] == [total]
        assert await replicas.status(own | own_pair) == 200
        mixed = own_pair | {"CF-Access-Client-Secret": their_pair["CF-Access-Client-Secret"]}
        for headers in (
            own | their_pair,
            mixed,
            {"CF-Access-Client-Id": own_pair["CF-Access-Client-Id"]},
            {"Authorization": own["Authorization"][:-1]},
            {"Authorization": "Bearer simusage_0123456789abcdef_guess"},
        ):
            assert await replicas.status(headers) == 401


async def test_the_secret_is_shown_once_and_nowhere_else(
    settings: Settings, redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Made, listed, revoked by the command line: neither Kafka, Redis, a log nor an answer has it."""
    async with copying(settings, redis):
        replicas = Replicas(settings, redis)
        options = ("--tenant", "acme", "--name", "dash|board", "--scope", "export", "--scope", "read")
        code, output, errors = await command(settings, tmp_path, "create", *options, "--expires-in", "90d")
        assert code == 0, errors
        headers = shown(output)
        bearer_header = {"Authorization": headers.pop("Authorization")}
        token_id, secret = headers.values()
        assert bearer_header["Authorization"] == f"Bearer simusage_{token_id}_{secret}"
        assert output.startswith(f"token {token_id} of tenant acme: read, export; expires 20")
        assert await replicas.status(bearer_header) == await replicas.status(headers) == 200

        code, listed, more = await command(settings, tmp_path, "list", "--tenant", "acme")
        assert code == 0, more
        (row,) = (
            line for line in listed.splitlines() if line.startswith(f"  {token_id}") or token_id in line
        )
        assert row.split()[1:5] == ["acme", "dash|board", "read,export", "valid"]
        assert "zebra" not in listed

        code, told, errors_of_revoke = await command(settings, tmp_path, "revoke", token_id)
        assert (code, told.startswith(f"token {token_id} of tenant acme is revoked since ")) == (0, True)
        refused = await replicas.ask(bearer_header)
        assert refused.status_code == 401
        again = await command(settings, tmp_path, "revoke", token_id)
        assert again[:2] == (0, told)

        records = [token.model_dump_json() for token in await known(settings) if token.id == token_id]
        held = await redis.hget(keys.TOKENS, token_id)
        for place in (
            listed,
            told,
            errors,
            more,
            errors_of_revoke,
            refused.text,
            *records,
            held,
            caplog.text,
        ):
            assert secret not in str(place)
        assert token_id in records[0]


async def test_the_lines_of_the_page_run(settings: Settings, redis: Redis, tmp_path: Path) -> None:
    """Those that docs/operations.md shows: a token is made, listed and revoked by them."""
    lines = re.findall(r"^simusage token ([^#\n]+)", PAGE, re.MULTILINE)
    create, listing, revoking = (line.replace("--config FILE", "").split() for line in lines)
    async with copying(settings, redis):
        code, output, errors = await command(settings, tmp_path, *create)
        assert code == 0, errors
        pair = shown(output)
        bearer_header = {"Authorization": pair.pop("Authorization")}
        replicas = Replicas(settings, redis)
        assert await replicas.status(bearer_header) == 200
        token_id = pair["CF-Access-Client-Id"]
        for words, state in ((listing, "valid"), (revoking, ""), (listing, "revoked")):
            code, output, errors = await command(
                settings, tmp_path, *(token_id if word == "ID" else word for word in words)
            )
            assert code == 0, errors
            assert any(token_id in line and state in line for line in output.splitlines())
        assert await replicas.status(pair) == 401


async def test_two_are_valid_while_one_is_rotated(settings: Settings, redis: Redis) -> None:
    """The old one until it is revoked, from one request to the next, the new one on and on."""
    async with copying(settings, redis):
        replicas = Replicas(settings, redis)
        old_id, old, _ = await made(settings)
        _, new, _ = await made(settings)
        assert await replicas.status(old) == await replicas.status(new) == 200
        (token,) = (token for token in await known(settings) if token.id == old_id)
        await keep(settings, token.model_copy(update={"revoked_at": NOW}))
        assert await replicas.status(old) == 401
        assert await replicas.status(new) == 200


async def test_a_token_ends_at_its_expiry(settings: Settings, redis: Redis) -> None:
    """Whether or not the replica knows it already."""
    async with copying(settings, redis):
        replicas = Replicas(settings, redis)
        _, headers, _ = await made(settings, expires_at=NOW + timedelta(days=1))
        assert await replicas.status(headers) == 200
        replicas.now = NOW + timedelta(days=1)
        assert await replicas.status(headers) == 401
        assert await Replicas(settings, redis, replicas.now).status(headers) == 401


@pytest.mark.parametrize(
    ("scopes", "path", "status"),
    [
        (("read",), ASK, 200),
        (("read",), "/ops/connectors", 403),
        (("ops",), "/ops/connectors", 200),
        (("ops",), ASK, 403),
        (("export",), ASK, 403),
        (("read", "export", "ops"), "/ops/connectors", 200),
    ],
)
async def test_scopes_are_kept_apart(
    settings: Settings, redis: Redis, scopes: tuple[Scope, ...], path: str, status: int
) -> None:
    """A 403 names the one that is missing."""
    async with copying(settings, redis):
        _, headers, _ = await made(settings, scopes=scopes)
        answer = await Replicas(settings, redis).ask(headers, path)
    assert answer.status_code == status
    if status == 403:
        assert ("'read'" if path == ASK else "'ops'") in answer.json()["detail"]


async def test_the_copy_comes_back_after_redis_was_emptied(settings: Settings, redis: Redis) -> None:
    """Until it is complete the answer is 503, neither data nor 401; then the same replica answers again."""
    replicas = Replicas(settings, redis)
    async with copying(settings, redis):
        _, headers, _ = await made(settings)
        revoked_id, revoked, _ = await made(settings)
        assert await replicas.status(headers) == await replicas.status(revoked) == 200
        (token,) = (token for token in await known(settings) if token.id == revoked_id)
        await keep(settings, token.model_copy(update={"revoked_at": NOW}))
    await redis.delete(keys.TOKENS, keys.TOKENS_COPY)
    for _ in range(2):
        answer = await replicas.ask(headers)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:simusage:problem:rebuilding"
        assert int(answer.headers["retry-after"]) > 0
    async with copying(settings, redis):
        assert await replicas.status(headers) == 200
        assert await replicas.status(revoked) == 401
        await redis.delete(keys.TOKENS, keys.TOKENS_COPY)
        await wait_until(lambda: complete(redis), timeout=30, description="the copy made anew")
        assert await replicas.status(headers) == 200
        assert await replicas.status(revoked) == 401


async def test_a_running_connect_keeps_the_copy(
    kafka_bootstrap: str, settings: Settings, redis: Redis, tmp_path: Path, unique_name: Names
) -> None:
    """Beside its work; what the topic has is in Redis within seconds, emptied or not."""
    fleet = Fleet(unique_name)
    async with simulators() as (_, address):
        accounts = {fleet.kore: kore_table(tmp_path, address, fleet.acme)}
        running = settings_of(kafka_bootstrap, settings.redis_url, [*TENANTS, *fleet.tenants], accounts)
        async with connecting(running):
            _, headers, _ = await made(settings)
            await wait_until(lambda: complete(redis), timeout=30, description="the copy of the tokens")
            assert await Replicas(settings, redis).status(headers) == 200
            await redis.delete(keys.TOKENS, keys.TOKENS_COPY)
            await wait_until(lambda: complete(redis), timeout=30, description="the copy made anew")
            assert await Replicas(settings, redis).status(headers) == 200


async def test_a_token_of_the_configuration_needs_no_copy(redis: Redis, redis_url: str) -> None:
    """Even where its id could be that of one that was made."""
    await ReadModel(redis).complete()
    pair = TokenSettings(tenant="acme", client_id="0123456789abcdef", client_secret=SecretStr("kept"))
    configured = Settings(
        tenants=("acme",),
        redis=RedisSettings(url=SecretStr(redis_url)),
        serve=ServeSettings(tokens=(pair,)),
    )
    replicas = Replicas(configured, redis)
    headers = {"CF-Access-Client-Id": "0123456789abcdef", "CF-Access-Client-Secret": "kept"}
    assert await replicas.status(headers) == 200
    assert await replicas.status({**headers, "CF-Access-Client-Secret": "wrong"}) == 503


async def test_a_revocation_stands_whoever_writes_last(settings: Settings, redis: Redis) -> None:
    """The copy may come to the token's making after the command line has written its revocation."""
    token, secret = mint("acme", "", ["read"], NOW, None)
    await keep(settings, token)
    await keep(settings, token.model_copy(update={"revoked_at": NOW}))
    assert not await complete(redis)
    async with copying(settings, redis):
        stored = await redis.hget(keys.TOKENS, token.id)
        assert stored is not None
        assert b'"revoked_at":"2026' in stored
        headers = {"Authorization": f"Bearer {bearer(token, secret)}"}
        assert await Replicas(settings, redis).status(headers) == 401


async def test_a_tenant_that_is_gone_has_no_tokens(settings: Settings, redis: Redis) -> None:
    """Taken out of the configuration, it is let in no more."""
    async with copying(settings, redis):
        _, headers, _ = await made(settings, "zebra")
        without = settings.model_copy(update={"tenants": ("acme",)})
        assert await Replicas(settings, redis).status(headers) == 200
        assert await Replicas(without, redis).status(headers) == 401


async def test_without_redis_the_token_is_kept_in_kafka(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    """The command says so, and whoever keeps the copy brings it to Redis later."""
    away = settings_of(settings.kafka.bootstrap, f"redis://127.0.0.1:{free_port()}/0", TENANTS, {})
    code, output, errors = await command(away, tmp_path, "create", "--tenant", "acme")
    assert code == 0
    assert "Redis does not answer" in errors
    async with copying(settings, redis):
        authorization = {"Authorization": shown(output)["Authorization"]}
        now = datetime.now(UTC)
        assert await Replicas(settings, redis, now).status(authorization, "/v1/usage") == 200


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("create", "--tenant", "nobody"), "--tenant: got 'nobody'; want one of tenants"),
        (("create", "--tenant", "acme", "--scope", "all"), "want one of: read, export, ops"),
        (("create", "--tenant", "acme", "--expires-in", "soon"), "as in 90d"),
        (("create", "--tenant", "acme", "--expires-in", "0d"), "as in 90d"),
        (("create", "--tenant", "acme", "--expires-at", "2020-01-01T00:00:00Z"), "that is past"),
        (("create", "--tenant", "acme", "--expires-at", "2027-01-01T00:00:00"), "want an instant as in"),
        (("create", "--tenant", "acme", "--expires-in", "1d", "--expires-at", "x"), "give one of them"),
        (("create", "--tenant", "acme", "--name", "a\nb"), "printable"),
        (("revoke", "0123456789abcdef"), "no token has it"),
    ],
)
async def test_what_is_asked_for_wrongly_is_refused(
    settings: Settings, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    """With exit code 2 and one line."""
    code, output, errors = await command(settings, tmp_path, *words)
    assert (code, output) == (2, "")
    assert why in errors
    assert "Traceback" not in errors
