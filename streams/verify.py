"""Verify: fold all events anew, beside the live worker, and compare with every number that is published."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import keys
from streams.comparison import Difference
from streams.contexts import Contexts
from streams.errors import ConfigError, UnavailableError
from streams.kafka import ensure_topics
from streams.lastwords import LastWords, judge
from streams.partition_check import NotComparableError, Outcome, PartitionCheck
from streams.redis_access import check_redis, connect_redis, redis_place
from streams.refold import Aside, Refold, topic_reader
from streams.rollups import Rollups
from streams.settings import Settings
from streams.topics import AGGREGATES, DEADLETTERS, USAGE_EVENTS

logger = logging.getLogger(__name__)


async def verify(settings: Settings, *, patience_s: float, say: Callable[[str], None]) -> Outcome:
    """Compare everything; `say` gets a line for each difference and for each partition left out.

    A partition whose read model does not become complete and recent within `patience_s` seconds is left
    out. Raises `ConfigError` or `UnavailableError` where broker or Redis do not allow a comparison at all.
    """
    cluster = await ensure_topics(settings)
    async with AsyncExitStack() as stack:
        redis = connect_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        await check_redis(redis, settings.redis_url)
        await _check_owner(settings, redis, cluster)
        count = settings.kafka.partitions
        letters = await stack.enter_async_context(topic_reader(settings, DEADLETTERS, 1))
        aggregates = await stack.enter_async_context(topic_reader(settings, AGGREGATES, count))
        events = await stack.enter_async_context(topic_reader(settings, USAGE_EVENTS, count))
        aside, words = Aside(letters), LastWords(aggregates)
        await aside.refresh()
        await words.refresh()
        logger.info("last words read", extra={"records": words.read})
        outcome = Outcome()
        horizon = timedelta(days=settings.retention.horizon_days)
        early, seen, first = words.tenants(), set[str](), 0
        for partition in range(count):
            fold = Refold(events, partition, aside, horizon)
            check = PartitionCheck(settings, redis, fold, words, outcome, patience_s)
            try:
                _tell(await check.run(), outcome, say)
                outcome.compared += 1
            except NotComparableError as error:
                outcome.failed[partition] = str(error)
                say(f"partition {partition} was not compared: {error}")
            seen |= check.tenants
            first = max(first, fold.first)
            outcome.records += fold.records
            logger.info(
                "partition done",
                extra={"partition": partition, "of": count, "differences": outcome.differences},
            )
        if not outcome.failed:
            strangers = sorted(early - seen)
            _tell(_of_strangers(words, strangers, first, outcome), outcome, say)
        return outcome


def _tell(found: Iterable[Difference], outcome: Outcome, say: Callable[[str], None]) -> None:
    for difference in found:
        outcome.differences += 1
        say(f"difference: {difference}")


def _of_strangers(
    words: LastWords, tenants: Iterable[str], first: int, outcome: Outcome
) -> Iterator[Difference]:
    """Yield the last words that say something of tenants of whom there is nothing anywhere else."""
    nothing = Rollups(Contexts(writer=0))
    for tenant in tenants:
        for window, word in sorted(words.of(tenant).items()):
            difference = judge(nothing, window, word)
            if window[2] < first:
                outcome.too_old += 1
            elif difference is not None:
                yield difference


async def _check_owner(settings: Settings, redis: Redis, cluster: str) -> None:
    try:
        stored: Any = await redis.hget(keys.META, "cluster")
    except (RedisError, OSError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
    place = redis_place(settings.redis_url)
    if stored is None:
        raise ConfigError("redis.url", place, "no worker has written there yet: start one, then verify")
    if stored.decode() != cluster:
        raise ConfigError(
            "redis.url",
            place,
            f"it is of Kafka cluster {stored.decode()}, kafka.bootstrap of {cluster}: correct one of them",
        )
