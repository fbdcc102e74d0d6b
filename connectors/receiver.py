"""The callback receiver: takes what providers push, and answers 2xx only after Kafka has acknowledged it.

========================================  ======  ====================================================
what comes                                answer  what becomes of it
========================================  ======  ====================================================
an account that has no callbacks          404     nothing
a wrong or missing secret or signature    401     nothing
a body over the limit                     413     nothing; the provider has to send smaller batches
a body that is no JSON array or object    200     one dead letter `malformed` with all of its bytes
records, some of which cannot be used     200     the good ones count, the others are dead letters
records of SIMs that were not listed yet  200     they are parked in Kafka where only a listing tells
                                                  whose they are, and count after the next one
anything while Kafka does not answer      503     nothing; emnify repeats it, KORE three times,
                                                  Onomondo perhaps not (`Retry-After`). It comes
                                                  within the time that the provider gives us
========================================  ======  ====================================================

An unreadable body is answered with 200 because it stays unreadable however often it is sent, and a provider
whose retries are exhausted stops its stream (emnify's status Error), which would hold up all behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.callbacks import CallbackHandler, Caller, normalised
from connectors.packing import Packer
from connectors.parked import parked
from connectors.publisher import Owners, Sender
from streams.errors import UnavailableError

logger = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 5
"""Seconds after which a refused provider should come again: a broker's restart takes about that."""

AT_ONCE: Final = 4
"""Callbacks that are normalised in turns; the others queue. With a hundred at once each would wait for the
turns of all, and so would Kafka's acknowledgements."""

SMALL_BYTES: Final = 64 * 1024
"""Callbacks up to this size queue apart: batches of thousands of records would use up the second that the
sender of a single one gives us."""


class Receiver:
    """The ASGI application over the handlers of all accounts."""

    def __init__(
        self,
        handlers: Mapping[str, CallbackHandler],
        sender: Sender,
        owners: Owners,
        *,
        body_limit: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._handlers = handlers
        self._sender = sender
        self._owners = owners
        self._packer = Packer(sender, owners)
        self._small, self._large = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._body_limit = body_limit
        self._clock = clock
        self.accepted: dict[str, datetime] = {}
        """When each account's last callback was accepted here."""
        self.app = Starlette(
            routes=[
                Route("/callbacks/{account}", self._callback, methods=["POST", "PUT"]),
                Route("/callbacks/{account}/{token}", self._callback, methods=["POST", "PUT"]),
                Route("/livez", self._livez),
            ]
        )

    async def _livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _callback(self, request: Request) -> Response:
        arrived = asyncio.get_running_loop().time()
        handler = self._handlers.get(request.path_params["account"])
        if handler is None:
            return _refusal(404, "no account of this name takes callbacks")
        token, sender = request.path_params.get("token", ""), request.client
        if not handler.authorised(Caller(request.headers, token, sender.host if sender else "")):
            logger.warning("callback for account %s with a wrong secret", handler.account.name)
            return _refusal(401, "the secret is missing or wrong")
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return _refusal(400, "the body broke off")
        if body is None:
            logger.warning("callback for account %s over %d bytes", handler.account.name, self._body_limit)
            return _refusal(413, f"at most {self._body_limit} bytes: send smaller batches")
        if not handler.signed(request.method, request.headers, body):
            logger.warning("callback for account %s with a wrong signature", handler.account.name)
            return _refusal(401, "the signature is missing or wrong")
        try:
            async with asyncio.timeout_at(arrived + handler.answer_s):
                counts = await self._take(handler, body)
        except (UnavailableError, TimeoutError) as error:
            why = error if isinstance(error, UnavailableError) else f"not done in {handler.answer_s:g} s"
            logger.warning("callback for account %s refused: %s", handler.account.name, why)
            return _refusal(503, "try again", {"Retry-After": str(RETRY_AFTER_S)})
        self.accepted[handler.account.name] = self._clock()
        return JSONResponse(counts)

    async def _take(self, handler: CallbackHandler, body: bytes) -> dict[str, int]:
        """Put into Kafka what a body holds; returns what became of its items. Raises `UnavailableError`."""
        account, at = handler.account, self._clock()
        async with self._small if len(body) <= SMALL_BYTES else self._large:
            batch = await normalised(handler, body)
        waiting = batch.part(lambda filed: self._owners.unlisted(account, filed))
        if waiting:
            await self._sender.send(parked(account, (each.original for each in waiting), at))
        await self._packer.publish(account, batch, received_at=at, origin=f"callback:{account.name}")
        return {
            "accepted": batch.accepted,
            "parked": len(waiting),
            "dead_lettered": len(batch.rejected),
            "ignored": batch.ignored,
        }

    async def _body(self, request: Request) -> bytes | None:
        """Read the body, or give up as soon as it exceeds the limit, whatever its Content-Length says."""
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > self._body_limit:
            return None
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._body_limit:
                return None
        return bytes(body)


def _refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"detail": detail}, status, headers=headers)
