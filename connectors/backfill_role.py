"""The role behind `simusage backfill`: asks for a run and follows it to its end.

While it runs it is one more replica of the account's poller. Where `connect` holds the lease it only looks
on; where nobody does it polls and backfills itself.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from connectors.backfill import Backfillable
from connectors.parts import Connector, connector
from connectors.registry import Registered, find_account, utc_now
from connectors.runs import Asked, Done, Runs
from connectors.values import micros
from streams.errors import ConfigError
from streams.kafka import ensure_topics
from streams.settings import Settings

FOLLOW_S: Final = 0.5
"""How often the progress is looked at."""

Say = Callable[[str], None]


async def run(
    settings: Settings, name: str, low: datetime, high: datetime | None, *, instead: bool, say: Say
) -> None:
    """Backfill an account over `[low, high)`, by default up to today; going on where it was left off.

    Raises `ConfigError` for a range that cannot be read, or where another one is under way and not `instead`
    given up.
    """
    entry = find_account(settings, name)
    await ensure_topics(settings)
    async with connector(settings, [entry]) as parts:
        end = high or utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        _checked(entry, parts, low, end)
        await parts.runs.refresh()
        asked = await _asked(parts.runs, name, low, end, instead=instead)
        stop = asyncio.Event()
        polling = asyncio.create_task(parts.pollers[0].run(stop))
        following = asyncio.create_task(_follow(parts.runs, name, asked, say))
        try:
            await asyncio.wait({polling, following}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            following.cancel()
            results = await asyncio.gather(polling, following, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _checked(entry: Registered, parts: Connector, low: datetime, high: datetime) -> None:
    name, provider = entry.account.name, entry.account.settings.provider
    job = parts.pollers[0].job if parts.pollers else None
    if not isinstance(job, Backfillable):
        raise ConfigError(
            f"accounts.{name}", provider, "this account's source cannot tell the past: nothing to backfill"
        )
    now = utc_now()
    floor = job.backfill_floor(now)
    if low < floor:
        first = (floor + timedelta(days=1)).date() if floor.hour or floor.minute else floor.date()
        raise ConfigError("--from", str(low.date()), f"{provider} keeps usage since {first}: begin there")
    if high > now:
        raise ConfigError("--to", str(high.date()), f"the past ends on {now.date()}, which polling reads")
    if low >= high:
        raise ConfigError("--from", str(low.date()), f"want a day before --to, which is {high.date()}")


async def _asked(runs: Runs, name: str, low: datetime, high: datetime, *, instead: bool) -> Asked:
    """Return the run to follow: the one under way where it is the same, else a new one."""
    start, end = micros(low), micros(high)
    pending = runs.pending(name)
    if pending is not None and (pending.start, pending.end) == (start, end):
        return pending
    if pending is not None and not instead:
        done = runs.done(name)
        came = done.at.date() if done else pending.low.date()
        raise ConfigError(
            "--from and --to",
            f"{low.date()} to {high.date()}",
            f"the run {pending.low.date()} to {pending.high.date()} has come to {came}: "
            "let it end with these dates, or give it up with --instead",
        )
    asked = Asked(run=f"{utc_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", start=start, end=end)
    await runs.ask(name, asked)
    return asked


async def _follow(runs: Runs, name: str, asked: Asked, say: Say) -> None:
    """Say how far the run has come until it is at its end."""
    began: tuple[float, datetime] | None = None
    while runs.asked(name) == asked:
        done = runs.done(name)
        if done is not None:
            began = began or (time.monotonic(), done.at)
            say(progress(name, asked, done, (time.monotonic() - began[0], done.at - began[1])))
        else:
            say(f"{name}: waiting for its first chunk")
        if runs.pending(name) is None:
            return
        await asyncio.sleep(FOLLOW_S)
        await runs.refresh()
    raise ConfigError(f"accounts.{name}", asked.run, "another backfill was asked for instead of this one")


def progress(name: str, asked: Asked, done: Done, pace: tuple[float, timedelta]) -> str:
    """Return one line: days, records, what is left at the pace of so many seconds for so much, trouble."""
    seconds, span = pace
    whole, come = (asked.high - asked.low).days, (done.at - asked.low).days
    parts = [f"{name}: {come} of {whole} days", f"{done.records:,} records"]
    if done.until < asked.end and span:
        left_s = seconds * ((asked.high - done.at) / span)
        parts.append(f"about {timedelta(seconds=round(left_s))} left")
    if done.error:
        parts.append(f"tried again after: {done.error}")
    return ", ".join(parts)
