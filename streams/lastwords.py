"""The last word of `usage.aggregates.v1` on every window: the one with the highest version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from streams.aggregate import aggregate_messages
from streams.comparison import Difference, instant
from streams.refold import read_to_end
from streams.rollups import Rollups, Window
from streams.windows import GRANULARITIES

_UNREADABLE: Final = -1


@dataclass(frozen=True, slots=True)
class Word:
    """What was said of a window: a digest, because the words of all windows are held at once."""

    version: int
    digest: bytes
    summary: str
    empty: bool


class LastWords:
    """The last words, by window; `refresh` reads on."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._words: dict[str, dict[Window, Word]] = {}
        self.read = 0
        """Records read."""

    async def refresh(self) -> None:
        """Read up to the topic's present end."""
        await read_to_end(self._consumer, self._take)

    def tenants(self) -> set[str]:
        """Return the tenants that have words."""
        return set(self._words)

    def of(self, tenant: str) -> dict[Window, Word]:
        """Return the last words on a tenant's windows."""
        return self._words.get(tenant, {})

    def _take(self, record: ConsumerRecord) -> None:
        self.read += 1
        window = _window((record.key or b"").decode("utf-8", "replace"))
        if window is None or record.value is None:
            return
        word = _word(record.value)
        known = self._words.setdefault(window[0], {}).get(window)
        if known is None or word.version >= known.version or word.version == _UNREADABLE:
            self._words[window[0]][window] = word


def judge(rollups: Rollups, window: Window, word: Word | None) -> Difference | None:
    """Return how a last word differs from the fold at its version; no word and no usage are alike."""
    grouped = rollups.grouped([window])
    if word is None and not len(grouped.matrix):
        return None
    tenant, granularity, start = window
    ours = _word(aggregate_messages(grouped, 0)[0].value)
    if word is not None and word.digest == ours.digest:
        return None
    theirs = "nothing" if word is None else f"version {word.version}: {word.summary}"
    if word is not None and word.summary == ours.summary:
        theirs += " (the breakdown differs)"
    return Difference(f"aggregate {tenant}|{granularity}|{instant(start)}", ours.summary, theirs)


def _window(key: str) -> Window | None:
    tenant, _, rest = key.partition("|")
    found, _, start = rest.partition("|")
    for granularity in GRANULARITIES:
        if found == granularity:
            try:
                return tenant, granularity, int(datetime.fromisoformat(start).timestamp())
            except ValueError:
                return None
    return None


def _word(value: bytes) -> Word:
    try:
        body: dict[str, Any] = orjson.loads(value)
        version = int(body.pop("version"))
        digest = hashlib.blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
        cost = ", ".join(f"{each['amount']} {each['currency']}" for each in body["cost"]) or "no cost"
        summary = (
            f"{body['records']} records, {body['data']['total_bytes']} bytes,"
            f" {body['sms']['total_messages']} messages, {cost}"
        )
        return Word(version, digest, summary, body["records"] == 0)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return Word(_UNREADABLE, b"", f"unreadable: {value[:80]!r}", empty=False)
