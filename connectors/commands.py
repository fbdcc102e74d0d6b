"""The commands around dead letters: what was set aside, and how it comes back."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from typing import Annotated

import typer

from streams.commands import Config, LogJson, start
from streams.deadletters import REASONS
from streams.errors import ConfigError
from streams.logs import configure_logging
from streams.settings import Settings, load_settings

deadletters = typer.Typer(
    help="What could not be used: list it, look at it, and send it again.\n\n"
    "Example:\n\n  simusage deadletters list --config config/simusage.toml --reason malformed",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reason = Annotated[
    str | None, typer.Option(metavar="REASON", help=f"Only this reason: {', '.join(REASONS)}.")
]


@deadletters.command(name="list")
@start
def list_letters(
    config: Config = None,
    reason: Reason = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what is known to be this tenant's.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what came through this account.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Show so many at most; all are counted.")
    ] = 50,
    log_json: LogJson = False,
) -> None:
    """List the dead letters, the newest first, and count them by reason.

    Needs Kafka ([kafka]); changes nothing. OFFSET is the name under which `show` and `replay` know a letter.

    \b
    Example:
      simusage deadletters list --config config/simusage.toml --account emnify-main --limit 10
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    _known(reason)
    from rich.console import Console
    from rich.table import Table

    from streams.deadletter_log import Filter, Letter, scan

    wanted, counts, newest = Filter(reason, tenant, account), Counter[str](), deque[Letter](maxlen=limit)

    def take(letter: Letter) -> None:
        if wanted.matches(letter):
            counts[letter.reason] += 1
            newest.append(letter)

    asyncio.run(scan(settings, take))
    names = ("offset", "time", "reason", "tenant", "account", "origin", "bytes", "detail")
    table = Table(*names, box=None)
    for letter in reversed(newest):
        table.add_row(
            str(letter.offset),
            f"{letter.failed_at:%Y-%m-%dT%H:%M:%SZ}",
            letter.reason,
            letter.tenant or "-",
            letter.account or "-",
            letter.origin,
            str(len(letter.value)),
            letter.detail,
        )
    on_screen = sys.stdout.isatty()
    console = Console(soft_wrap=not on_screen, markup=False, width=None if on_screen else 10_000)
    if newest:
        console.print(table)
    for name, count in sorted(counts.items()):
        typer.echo(f"{name}: {count}")
    typer.echo(f"{counts.total()} dead letters, {len(newest)} shown")


@deadletters.command()
@start
def show(
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="As `list` shows it.")],
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """Show one dead letter: its headers, an empty line, and the original bytes as they are.

    \b
    Example:
      simusage deadletters show 1042 --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from streams.deadletter_log import letters_at

    (letter,) = asyncio.run(letters_at(settings, [offset]))
    for name, value in letter.headers:
        typer.echo(f"{name}: {value.decode('utf-8', 'replace')}")
    typer.echo()
    sys.stdout.flush()
    sys.stdout.buffer.write(letter.value + b"\n")


@deadletters.command()
@start
def replay(
    offsets: Annotated[
        list[int] | None, typer.Argument(metavar="[OFFSET]...", help="As `list` shows them.")
    ] = None,
    config: Config = None,
    reason: Reason = None,
    log_json: LogJson = False,
) -> None:
    """Send dead letters again, after their cause was mended: by offset, or all of one reason.

    A usage event goes to usage.events.v1 with its original bytes; a single record goes there inside the
    envelope of its event; a callback's item goes through its account's handler again, with the rules of
    today. What would only come back stays where it is, and the line says why: conflicts, what is still
    malformed or beyond the horizon, and what was polled (the poller reads that again).

    Letters are kept, and replaying one twice changes no number. Needs Kafka ([kafka]) and, for callbacks,
    [accounts.*]. Ends with 0 if all were sent, with 1 if some stay.

    \b
    Example:
      simusage deadletters replay --reason unknown-tenant --config config/simusage.toml
      simusage deadletters replay 1042 1043 --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    _known(reason)
    if bool(offsets) == bool(reason):
        raise ConfigError("replay", "both" if reason else "neither", "name either offsets or --reason")
    sent, stay = asyncio.run(_replay(settings, offsets or [], reason))
    typer.echo(f"{sent} replayed, {stay} stay")
    raise typer.Exit(1 if stay else 0)


async def _replay(settings: Settings, offsets: list[int], reason: str | None) -> tuple[int, int]:
    from connectors.inventory import kafka_inventory
    from connectors.publisher import Publisher
    from connectors.replay import RawReplay
    from streams.deadletter_log import Filter, Letter, letters_at, scan
    from streams.kafka import make_producer
    from streams.replay import StaysError, replaying

    letters: list[Letter] = []
    if reason is None:
        letters = await letters_at(settings, offsets)
    else:
        wanted, once = Filter(reason), dict[str, Letter]()
        await scan(settings, lambda each: once.update({each.id: each}) if wanted.matches(each) else None)
        letters = list(once.values())
    sent = 0
    publisher = Publisher(lambda: make_producer(settings))
    inventory = kafka_inventory(settings, publisher)
    try:
        async with replaying(settings, RawReplay(settings, inventory)) as role:
            for letter in letters:
                try:
                    await role.send(letter)
                    sent += 1
                except StaysError as error:
                    typer.echo(f"offset {letter.offset} stays: {error}")
    finally:
        await inventory.stop()
        await publisher.stop()
    return sent, len(letters) - sent


def _known(reason: str | None) -> None:
    if reason is not None and reason not in REASONS:
        raise ConfigError("--reason", reason, f"want one of: {', '.join(REASONS)}")
