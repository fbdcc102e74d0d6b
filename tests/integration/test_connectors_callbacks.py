"""Callbacks over real HTTP and a real broker: refusals, many at once, and a broker that goes away."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connectors import publisher
from connectors.emnify import EmnifyCallback
from connectors.parts import connector
from connectors.registry import load_accounts
from streams.kafka import ensure_topics
from tests.conftest import OwnBroker
from tests.integration.connector_kit import (
    CALLBACK_SECRET,
    Found,
    emnify_table,
    read,
    served,
    settings_of,
)
from tests.unit.connector_fakes import cdr
from tests.waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.timeout(240)

HEADERS = {"X-Callback-Secret": CALLBACK_SECRET}
AT_ONCE = 100


class Provider:
    """One of many that push at once: callbacks of its own SIM, each again until it is taken."""

    def __init__(self, number: int, receiving: Receiving) -> None:
        self._sim = {"iccid": f"{8988303000000000000 + number:019d}"}
        self._cdrs = itertools.count(number * 100_000)
        self._receiving = receiving
        self.taken: set[str] = set()
        self.statuses: Counter[int] = Counter()

    async def push(self, callbacks: int, size: int, again: Callable[[], Awaitable[Any]]) -> None:
        """Push so many callbacks; `again` is awaited before one that was refused is repeated."""
        for _ in range(callbacks):
            cdrs = list(itertools.islice(self._cdrs, size))
            body = body_of(*(cdr(id=each, sim=self._sim) for each in cdrs))
            while (status := (await self._receiving.push(body))[0]) != 200:
                self.statuses[status] += 1
                await again()
            self.statuses[200] += 1
            self.taken |= {f"cdr:{each}" for each in cdrs}


class Receiving:
    """A receiver in front of a broker, and a provider that pushes to it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def push(self, body: Any, headers: dict[str, str] = HEADERS) -> tuple[int, dict[str, str]]:
        async with self._session.post(self._url, data=body, headers=headers) as response:
            await response.read()
            return response.status, dict(response.headers)


@asynccontextmanager
async def receiving(kafka: str, redis_url: str, folder: Path, account: str) -> AsyncIterator[Receiving]:
    table = emnify_table(folder, "http://127.0.0.1:9", {"Acme": "acme"})
    settings = settings_of(kafka, redis_url, ["acme"], {account: table})
    await ensure_topics(settings)
    async with (
        connector(settings, load_accounts(settings)) as parts,
        served(parts.receiver.app) as address,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Receiving(session, f"{address}/callbacks/{account}")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka may take its time to acknowledge, as on a busy machine."""
    monkeypatch.setattr(publisher, "SEND_S", LIMIT_S)
    monkeypatch.setattr(EmnifyCallback, "answer_s", LIMIT_S)


def body_of(*records: dict[str, Any]) -> bytes:
    return json.dumps(records).encode()


@pytest.mark.usefixtures("patient")
async def test_only_what_counts_reaches_kafka(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """401 and 413 leave nothing behind; of a partly bad batch the good part counts, the rest is kept."""
    account = unique_name("emnify")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 65_536

    bad, sim = cdr(id=2, start_timestamp="soon"), {"iccid": "8988303000000000003"}
    stranger = cdr(id=3, organisation={"id": 9, "name": "Nobody"}, sim=sim)
    async with receiving(kafka_bootstrap, redis_url, tmp_path, account) as provider:
        assert (await provider.push(body_of(cdr()), {"X-Callback-Secret": "wrong"}))[0] == 401
        assert (await provider.push(endless()))[0] == 413
        assert (await provider.push(body_of(cdr(id=1), bad, stranger)))[0] == 200
        assert (await provider.push(b"<html>"))[0] == 200
    found = await read(kafka_bootstrap, [account])
    assert [record.identity for event in found.usage for record in event.records] == ["cdr:1"]
    assert sorted(found.deadletters) == sorted(
        [
            ("malformed", json.dumps(bad).encode()),
            ("malformed", b"<html>"),
            ("unknown-tenant", json.dumps(stranger).encode()),
        ]
    )


@pytest.mark.usefixtures("patient")
async def test_a_large_batch_is_cut_into_events(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """emnify's default of 3000 records in one push; all are there when the push is answered."""
    account = unique_name("emnify")
    async with receiving(kafka_bootstrap, redis_url, tmp_path, account) as provider:
        body = io.BytesIO(body_of(*(cdr(id=number) for number in range(3000))))
        assert (await provider.push(body))[0] == 200
        found = await read(kafka_bootstrap, [account])
    assert len(found.newest) == 3000
    assert all(len(event.records) <= 500 for event in found.usage)


def identities(found: Found) -> set[str]:
    return {record.identity for event in found.usage for record in event.records}


@pytest.mark.usefixtures("patient")
async def test_what_many_callbacks_at_once_got_a_2xx_for_is_in_kafka(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """A hundred under way at any time, small and large ones, all of SIMs that nobody has seen before."""
    account = unique_name("emnify")

    async def never() -> None:
        raise AssertionError("a callback was refused though Kafka is there")

    async with receiving(kafka_bootstrap, redis_url, tmp_path, account) as receiver:
        providers = [Provider(number, receiver) for number in range(AT_ONCE)]
        async with asyncio.timeout(120):
            await asyncio.gather(
                *(each.push(5, 1 + 7 * (n % 8), never) for n, each in enumerate(providers)),
            )
        found = await read(kafka_bootstrap, [account])
    assert identities(found) == set().union(*(each.taken for each in providers))
    assert found.deadletters == []


async def test_a_2xx_is_kept_though_the_broker_dies_under_many_callbacks(
    own_broker: Callable[[], OwnBroker],
    kafka_backend: str,
    redis_url: str,
    tmp_path: Path,
    unique_name: Callable[..., str],
) -> None:
    """It dies and comes back in their midst: what it did not acknowledge is refused, and comes again."""
    account, broker = unique_name("emnify"), own_broker()
    await asyncio.to_thread(broker.start)
    back = asyncio.Event()
    async with receiving(broker.address, redis_url, tmp_path, account) as receiver:
        providers = [Provider(number, receiver) for number in range(AT_ONCE)]
        pushing = asyncio.gather(*(each.push(60, 5, back.wait) for each in providers))
        await wait_until(
            lambda: sum(len(each.taken) for each in providers) >= 500, description="the first callbacks"
        )
        await asyncio.to_thread(broker.kill)
        await wait_until(
            lambda: all(each.statuses[503] for each in providers), description="all to be refused"
        )
        before = set().union(*(each.taken for each in providers))
        await asyncio.to_thread(broker.start)
        await ensure_topics(settings_of(broker.address, redis_url, [], {}))
        back.set()
        async with asyncio.timeout(90):
            await pushing
        found = await read(broker.address, [account])
    taken = set().union(*(each.taken for each in providers))
    assert set().union(*(each.statuses for each in providers)) == {200, 503}
    # The embedded broker keeps nothing over a restart.
    assert identities(found) >= (taken - before if kafka_backend == "embedded" else taken)
    assert identities(found) <= taken
    assert found.deadletters == []


async def test_callbacks_wait_for_kafka(
    own_broker: Callable[[], OwnBroker],
    kafka_backend: str,
    redis_url: str,
    tmp_path: Path,
    unique_name: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a broker the provider is asked to come again, in time; afterwards the same push is taken."""
    account, broker = unique_name("emnify"), own_broker()
    await asyncio.to_thread(broker.start)
    async with receiving(broker.address, redis_url, tmp_path, account) as provider:

        async def taken(number: int) -> bool:
            return (await provider.push(body_of(cdr(id=number))))[0] == 200

        await wait_until(lambda: taken(1), description="the first push to be taken")
        await asyncio.to_thread(broker.kill)
        status, headers = await provider.push(body_of(cdr(id=2)))
        assert (status, int(headers["Retry-After"]) > 0) == (503, True)
        assert f"not acknowledged within {publisher.SEND_S:g} s" in caplog.text
        await asyncio.to_thread(broker.start)
        await ensure_topics(settings_of(broker.address, redis_url, [], {}))

        await wait_until(lambda: taken(2), description="the push to be taken again")
        found = await read(broker.address, [account])
    # The embedded broker keeps nothing over a restart.
    kept = set() if kafka_backend == "embedded" else {"cdr:1"}
    assert {record.identity for event in found.usage for record in event.records} == kept | {"cdr:2"}
