"""The copy of `tokens.v1` in Redis: the record of each token by its id."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from aiokafka.structs import ConsumerRecord
from redis.asyncio.client import Pipeline

from streams.errors import DataError
from streams.keys import TOKENS as KEY
from streams.keys import TOKENS_COPY
from streams.tokens import Token, decode
from streams.topics import TOKENS

logger = logging.getLogger(__name__)


class TokenContent:
    """What `connectors.topic_copy` copies of the tokens."""

    name = "tokens"
    topic = TOKENS
    meta = TOKENS_COPY
    patterns: Sequence[str] = (KEY,)

    async def queue(self, pipe: Pipeline, records: Sequence[ConsumerRecord]) -> None:
        """See `connectors.topic_copy.Content`."""
        pipe.multi()  # type: ignore[no-untyped-call]
        for record in records:
            try:
                token = decode(record.value)
            except DataError as error:
                logger.error("left out of the copy of the tokens: %s", error)
                continue
            put(pipe, token, record.value)


def put(pipe: Pipeline, token: Token, raw: bytes) -> None:
    """Queue the writing of one record.

    A revocation is the last word on a token and nothing else ever changes it, so the copy and the command
    line may write in any order.
    """
    if token.revoked_at is None:
        pipe.hsetnx(KEY, token.id, raw)
    else:
        pipe.hset(KEY, token.id, raw)
