"""The command that gives SIMs to another tenant."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from streams.commands import Config, LogJson, start
from streams.errors import ConfigError
from streams.logs import configure_logging
from streams.settings import Settings, load_settings


@start
def reassign(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name of the account in [accounts.*].")],
    to: Annotated[str, typer.Option(metavar="TENANT", help="Who is to have the usage.")],
    start_at: Annotated[
        str,
        typer.Option("--from", metavar="INSTANT", help="From when on, such as 2026-11-01T00:00:00Z (UTC)."),
    ],
    sim: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="ICCID, eid or provider's id of a SIM; may be repeated."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All SIMs of the account.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """Give SIMs to another tenant, from an instant on, with the usage that they had since.

    First the assignment goes to inventory.v1, so that polls and callbacks agree from then on; it stands until
    the account's rules name somebody else than they do today. Then every statement since the instant is told
    to the new tenant and retracted from the old one, and so are the numbers of all hours, days and months.

    What starts before the correction horizon (retention.horizon_days ago) can no longer be corrected and
    stays where it is; the command says how much that is. It may be broken off and begun again: what was moved
    is not moved twice. Needs Kafka ([kafka]), [accounts.*] and a running worker.

    For an account that is one tenant's, change `tenant` in the configuration too: SIMs that are seen for the
    first time go there.

    \b
    Example:
      simusage reassign kore-main --sim 8988307000000000001 --to globex --from 2026-11-01T00:00:00Z --dry-run
      simusage reassign kore-main --all --to globex --from 2026-11-01T00:00:00Z
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    if bool(sim) == everything:
        raise ConfigError("reassign", "both" if sim else "neither", "name either --sim or --all")
    if to not in settings.tenants:
        raise ConfigError("--to", to, "not among the configured tenants: add it there, or correct it here")
    from connectors.values import instant

    try:
        since = instant(start_at)
    except ValueError as error:
        raise ConfigError("--from", start_at, str(error)) from None
    asyncio.run(_reassign(settings, account, sim, to, since, dry_run=dry_run))


async def _reassign(
    settings: Settings, name: str, sims: list[str] | None, to: str, since: datetime, *, dry_run: bool
) -> None:
    from connectors.inventory import kafka_inventory
    from connectors.publisher import Publisher
    from connectors.reassign import Order, Reassignment, sims_named
    from connectors.registry import load_accounts, utc_now
    from streams.kafka import make_producer

    accounts = {entry.account.name: entry.account for entry in load_accounts(settings)}
    if name not in accounts:
        raise ConfigError("ACCOUNT", name, f"want one of: {', '.join(accounts)}")
    publisher = Publisher(lambda: make_producer(settings))
    inventory = kafka_inventory(settings, publisher)
    try:
        await inventory.refresh()
        chosen = sims_named(sims, name, inventory) if sims else None
        order = Order(accounts[name], chosen, to, since)
        role = Reassignment(settings, order, inventory, publisher, now=utc_now())
        tally = await (role.look() if dry_run else role.carry_out(typer.echo))
    finally:
        await inventory.stop()
        await publisher.stop()
    said = "would pass" if dry_run else "passed"
    typer.echo(
        f"{tally.statements} statements of {len(tally.sims)} SIMs, {tally.bytes} bytes of data, {said}"
        f" from {', '.join(sorted(tally.tenants)) or 'nobody'} to {to}"
    )
    if tally.too_old:
        typer.echo(
            f"{tally.too_old} statements stay: they start before {role.earliest:%Y-%m-%dT%H:%M:%SZ}, which"
            f" retention.horizon_days = {settings.retention.horizon_days} lets nobody correct"
        )
    if tally.in_session:
        typer.echo(
            f"{tally.in_session} cumulative statements stay: their sessions began before {since.isoformat()}"
        )
