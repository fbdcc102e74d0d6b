"""The outcome table: what to do about an answer, whom it concerns, and what to tell the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp

from streams.errors import DataError, UnavailableError


class Action(StrEnum):
    """What to do about an answer."""

    RETRY = "retry"
    REFRESH = "refresh-token-and-retry"
    WAIT = "wait-until"
    FAIL = "fail"
    DEAD_LETTER = "dead-letter"


class Failure(StrEnum):
    """Whom a failure concerns."""

    CONFIG = "config"
    TRANSIENT = "transient"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do, whom it concerns, and what to tell the operator."""

    action: Action
    failure: Failure
    words: str


class NoJsonError(Exception):
    """An answer of 2xx is not JSON: cut off, or a page of some proxy."""


OUTCOMES: Final[Mapping[int | type[Exception], Outcome]] = {
    301: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    302: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    307: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    308: Outcome(
        Action.FAIL, Failure.CONFIG, "redirects, which is not followed with a token: correct the address"
    ),
    400: Outcome(Action.FAIL, Failure.PROVIDER, "refuses the request as wrong"),
    401: Outcome(Action.REFRESH, Failure.CONFIG, "does not accept the credentials"),
    403: Outcome(Action.FAIL, Failure.CONFIG, "forbids this to these credentials"),
    404: Outcome(Action.FAIL, Failure.CONFIG, "does not know this path: correct the address"),
    408: Outcome(Action.RETRY, Failure.TRANSIENT, "timed out"),
    423: Outcome(Action.RETRY, Failure.TRANSIENT, "is locked"),
    425: Outcome(Action.RETRY, Failure.TRANSIENT, "is too early"),
    429: Outcome(Action.WAIT, Failure.TRANSIENT, "asks for fewer requests"),
    503: Outcome(Action.WAIT, Failure.TRANSIENT, "is unavailable"),
    aiohttp.InvalidURL: Outcome(Action.FAIL, Failure.CONFIG, "is no valid address"),
    aiohttp.ClientConnectorCertificateError: Outcome(
        Action.FAIL, Failure.CONFIG, "has a certificate that is not valid"
    ),
    aiohttp.ClientPayloadError: Outcome(Action.RETRY, Failure.TRANSIENT, "broke off its answer"),
    aiohttp.ClientError: Outcome(Action.RETRY, Failure.TRANSIENT, "cannot be reached"),
    TimeoutError: Outcome(Action.RETRY, Failure.TRANSIENT, "did not answer in time"),
    OSError: Outcome(Action.RETRY, Failure.TRANSIENT, "cannot be reached"),
    NoJsonError: Outcome(Action.RETRY, Failure.PROVIDER, "answers something that is not JSON"),
    DataError: Outcome(Action.DEAD_LETTER, Failure.PROVIDER, "states something that cannot be used"),
}

_SERVER = Outcome(Action.RETRY, Failure.TRANSIENT, "has an internal error")
_CLIENT = Outcome(Action.FAIL, Failure.PROVIDER, "refuses the request")
_STRANGE = Outcome(Action.FAIL, Failure.PROVIDER, "answers outside HTTP's rules for us")


def outcome_of(result: int | Exception) -> Outcome:
    """Look an HTTP status (not 2xx) or an exception up in the table; the most specific class counts.

    Raises the exception itself where it is none of the table: an error of ours is not to be tried again.
    """
    if isinstance(result, int):
        by_class = _SERVER if result >= 500 else _CLIENT if result >= 400 else _STRANGE
        return OUTCOMES.get(result, by_class)
    for kind in type(result).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind]
    raise result


class ProviderError(UnavailableError):
    """A provider's answer is of no use now; `failure` says whom that concerns."""

    def __init__(
        self, failure: Failure, text: str, *, status: int | None = None, wait_s: float | None = None
    ):
        super().__init__(text)
        self.failure = failure
        self.status = status
        self.wait_s = wait_s
        """Seconds after which the provider wants to be asked again, where it says so."""
