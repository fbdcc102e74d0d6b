"""The commands for those who run accounts."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from streams.commands import Config, LogJson, start
from streams.logs import configure_logging
from streams.settings import Settings, load_settings


@start
def backfill(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name of the account's table.")],
    low: Annotated[
        datetime, typer.Option("--from", metavar="DATE", formats=["%Y-%m-%d"], help="First day, in UTC.")
    ],
    high: Annotated[
        datetime | None,
        typer.Option(
            "--to", metavar="DATE", formats=["%Y-%m-%d"], help="Day after the last, in UTC; today by default."
        ),
    ] = None,
    instead: Annotated[
        bool, typer.Option("--instead", help="Give up another backfill of the account that is under way.")
    ] = False,
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """Read the past of an account, in whole days of UTC, and show how far it has come.

    It is read chunk by chunk between the sweeps of whoever polls the account, a running `connect` or else
    this command, and leaves half of the budget of requests to them. What was asked for is kept in Kafka,
    so it goes on after a kill of either, and the same command shows the rest. What is read names its run, and
    so does the coverage of each chunk.

    Needs Kafka, Redis and the account's credentials ([kafka], [redis], [accounts.*]).

    \b
    Example:
      simusage backfill kore-acme --from 2026-01-01 --to 2026-02-01 --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from connectors.backfill_role import run

    line = _Line()
    try:
        asyncio.run(
            run(
                settings,
                account,
                low.replace(tzinfo=UTC),
                high.replace(tzinfo=UTC) if high else None,
                instead=instead,
                say=line.say,
            )
        )
    finally:
        line.end()


@start
def plan(
    config: Config = None,
    sims: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="SIMs of each account, in place of what the inventory knows."),
    ] = None,
    log_json: LogJson = False,
) -> None:
    """Show what the accounts' schedules take of their providers' limits, and how fresh numbers will be.

    Asks no provider. The sizes of the fleets come from `inventory.v1` in Kafka ([kafka]), or from --sims. All
    figures are worst cases: every SIM has usage in every hour. Ends with 0, or with 1 where the limits make a
    schedule impossible; `connect` refuses to start with such a one.

    \b
    Example:
      simusage plan --config config/simusage.toml --sims 10000
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from rich.console import Console
    from rich.table import Table

    from connectors.plan import plan as planned
    from connectors.registry import load_accounts

    accounts = load_accounts(settings)
    known = {entry.account.name: sims for entry in accounts} if sims is not None else None
    plans = planned(accounts, asyncio.run(_fleet_sizes(settings)) if known is None else known)
    names = ("account", "provider", "SIMs", "requests", "sweep", "of the limit", "fresh within", "keeps")
    table = Table(*names, box=None)
    for each in plans:
        share = f"{each.share:.1%} {each.limit}" if each.limit else "none published"
        table.add_row(
            each.account,
            each.provider,
            f"{each.sims:,}",
            f"{each.requests:,.0f}",
            _duration(each.sweep_s),
            share,
            _duration(each.freshness_s),
            "NO" if each.problem else "yes",
        )
        if (other := each.fallback) is not None:
            figures = (f"{other.requests:,.0f}", _duration(other.sweep_s), "", _duration(other.freshness_s))
            table.add_row(f"  {other.where}", "", "", *figures, "")
    on_screen = sys.stdout.isatty()
    Console(soft_wrap=not on_screen, markup=False, width=None if on_screen else 10_000).print(table)
    problems = [each.problem for each in plans if each.problem is not None]
    for problem in problems:
        typer.echo(str(problem), err=True)
    raise typer.Exit(1 if problems else 0)


async def _fleet_sizes(settings: Settings) -> dict[str, int]:
    """Return how many SIMs of each account the inventory knows. Raises `UnavailableError`."""
    from connectors.inventory import kafka_inventory
    from connectors.publisher import Publisher
    from streams.kafka import make_producer

    publisher = Publisher(lambda: make_producer(settings))
    inventory = kafka_inventory(settings, publisher)
    try:
        await inventory.refresh()
        return inventory.sizes(settings.accounts)
    finally:
        await inventory.stop()
        await publisher.stop()


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


class _Line:
    """A line that is written over on a terminal; elsewhere each change is a line of its own."""

    def __init__(self) -> None:
        self._over = sys.stdout.isatty()
        self._last = ""

    def say(self, text: str) -> None:
        if text != self._last:
            typer.echo(f"\r{text:<{len(self._last)}}" if self._over else text, nl=not self._over)
            self._last = text

    def end(self) -> None:
        if self._over and self._last:
            typer.echo()
