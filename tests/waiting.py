"""Waiting for a condition instead of sleeping for a guessed time.

The limits are long: they cost nothing where the condition comes true, and a busy machine is slow.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast, overload

T = TypeVar("T")

LIMIT_S: Final = 60.0
"""Longest wait for anything, unless told otherwise."""

_PAUSE: Final = 0.02


def _failure(timeout: float, description: str, last: object) -> AssertionError:
    return AssertionError(f"not within {timeout:g} s: {description or 'the condition'} (last seen: {last!r})")


@overload
async def wait_until(
    predicate: Callable[[], Awaitable[T]],
    timeout: float = ...,  # noqa: ASYNC109 - as below
    description: str = ...,
) -> T: ...


@overload
async def wait_until(
    predicate: Callable[[], T],
    timeout: float = ...,  # noqa: ASYNC109 - as below
    description: str = ...,
) -> T: ...


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]],
    timeout: float = LIMIT_S,  # noqa: ASYNC109 - the failure must name what was waited for
    description: str = "",
) -> T:
    """Call a plain or async predicate until it is truthy, and return what it gave."""
    deadline = time.monotonic() + timeout
    while True:
        result = predicate()
        value = cast(T, await result if inspect.isawaitable(result) else result)
        if value:
            return value
        if time.monotonic() > deadline:
            raise _failure(timeout, description, value)
        await asyncio.sleep(_PAUSE)


def wait_until_sync(
    predicate: Callable[[], T], timeout: float = LIMIT_S, description: str = "", *, pause: float = _PAUSE
) -> T:
    """Do the same in a test that is not async; a look that costs much wants a longer pause."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise _failure(timeout, description, value)
        time.sleep(pause)
