"""Everything is killed, flushed, suspended and restarted under load; at the end every number is exact."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest

from connectors.demo.embedded import EmbeddedRedis
from streams import topics
from streams.events import header
from streams.kafka import ensure_topics
from tests.chaos.forms import Form
from tests.chaos.harness import Chaos
from tests.chaos.load import TENANTS, Load
from tests.chaos.verdict import judge, read
from tests.chaos.watch import Question, Watch, questions
from tests.conftest import OwnBroker
from tests.integration.worker_kit import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(3600)


async def test_every_number_is_exact_whatever_is_killed(
    tmp_path: Path,
    own_broker: Callable[[], OwnBroker],
    own_redis: Callable[[], EmbeddedRedis],
    kafka_backend: str,
    form: Form,
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """The oracle's cells, windows and topic; and no query ever saw an empty or partial number."""
    tell(f"\nchaos on the {kafka_backend} broker, seed {seed} (again: make chaos ARGS='--seed {seed}')\n")
    broker, redis = own_broker(), own_redis()
    broker.start()
    redis.start()
    stack = Stack(
        tmp_path, broker.address, redis.url, idempotent=kafka_backend != "embedded", tenants=TENANTS
    )
    load, chance = Load(seed, form.records), random.Random(f"actions {seed}")
    chaos = Chaos(stack, broker, redis, chance, tell)
    tasks: list[asyncio.Task[None]] = []
    try:
        await ensure_topics(stack.settings)
        chaos.workers.add()
        chaos.workers.add()
        tasks.append(asyncio.create_task(chaos.workers.keep()))
        await chaos.sending.publish(load.baseline())
        await chaos.settled(90)
        chaos.say("the baseline is folded")

        tokens = {tenant: secrets.token_urlsafe(16) for tenant in TENANTS}
        chaos.sending.offered_records = chaos.sending.offered_bytes = 0
        watch = Watch(
            chaos.serve(tokens),
            load,
            lambda: (chaos.sending.offered_records, chaos.sending.offered_bytes),
            tokens.__getitem__,
        )
        chaos.aged = watch.forgive
        asked = questions(load, stack.oracle.cells())
        await first_answers(watch, asked)
        tasks.append(asyncio.create_task(watch.run(asked)))
        chaos.say(f"{len(asked)} questions about the baseline are answered right; the chaos begins")

        plan = form.plan(chance, broker=kafka_backend == "apache")
        events = load.events()
        share = form.records // (250 * len(plan)) + 1
        for action in plan:
            publishing = asyncio.create_task(chaos.sending.publish(itertools.islice(events, share)))
            await chaos.pause(0.3, 4)
            await chaos.act(action)
            await publishing
        await chaos.sending.publish(events)
        chaos.say(
            f"the load is out: {chaos.sending.records} records, {dict(load.kinds)}; the last kill is done"
        )
        ended = time.monotonic()
        await chaos.settled(180)
        chaos.say(f"everything is folded, {time.monotonic() - ended:.1f} s later")

        differences = await judge(stack)
        chaos.say("judged: " + ("exact" if not differences else "\n".join(map(str, differences))))
        await first_answers(watch, asked)
        chaos.say(f"answers {dict(watch.answers)}, slowest {watch.slowest:.2f} s, faults {len(watch.faults)}")
        killed, ended_alone = dict(chaos.killed_in), chaos.workers.ended
        chaos.say(
            f"done {dict(chaos.done)}, workers killed while {killed}, ended by themselves {ended_alone}"
        )
        assert not differences, "\n".join(map(str, differences))
        assert not watch.faults, f"{len(watch.faults)} wrong answers\n" + "\n".join(watch.faults[:10])
        assert chaos.done["SIGKILLs of workers"] >= form.kills + 2 * form.early_kills
        assert await unreported_conflicts(stack, load) == set()
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await chaos.close()
        await stack.close()


async def first_answers(watch: Watch, asked: list[Question]) -> None:
    """Wait until every question is answered, and that right."""
    async with httpx.AsyncClient(base_url=watch.url, timeout=30) as client:

        async def listens() -> bool:
            try:
                return (await client.get("/livez")).status_code == 200
            except httpx.TransportError:
                return False

        await wait_until(listens, 30, "the query endpoint listens")
        for question in asked:

            async def answered(question: Question = question) -> bool:
                return await watch.check(client, question) or bool(watch.faults)

            await wait_until(answered, 60, f"an answer to {question.tenant} {question.parameters}")


async def unreported_conflicts(stack: Stack, load: Load) -> set[str]:
    """Return the identities whose two payloads of the newest revision left no dead letter (promise P3)."""
    newest = {identity: known[0] for (_, _, identity), known in stack.oracle.newest.items()}
    expected = {identity for identity, revision in load.conflicts if newest[identity] == revision}
    letters = await read(stack.kafka, topics.DEADLETTERS)
    named = {
        orjson.loads(letter.value)["identity"]
        for letter in letters
        if header(letter.headers, "ce_reason") == "conflict"
    }
    return expected - named
