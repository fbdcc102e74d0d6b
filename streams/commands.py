"""Commands for those who run simusage, and what all commands have in common."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from streams.errors import ConfigError, UnavailableError
from streams.logs import configure_logging
from streams.settings import load_settings

P = ParamSpec("P")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="SIMUSAGE_CONFIG",
        metavar="FILE",
        help="The TOML configuration; see config/simusage.example.toml. SIMUSAGE_... variables win over it.",
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line.")]


def start(role: Callable[P, None]) -> Callable[P, None]:
    """Turn what is wrong at start into one message and exit code 2; a stop by signal is a success."""

    @functools.wraps(role)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            role(*args, **kwargs)
        except (ConfigError, UnavailableError) as error:
            typer.echo(f"simusage: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(0) from None

    return command


@start
def verify(
    config: Config = None,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Longest wait for a partition's read model to catch up."),
    ] = 60.0,
    log_json: LogJson = False,
) -> None:
    """Prove the numbers: count all events anew and compare with everything that is published.

    Folds usage.events.v1 from its beginning, in this process and beside the worker, and compares every cell,
    hour, day, month and coverage in Redis and the last word on every window in usage.aggregates.v1. Ingestion
    may go on. Needs Kafka and Redis ([kafka], [redis]), and memory for one partition's state at a time;
    changes nothing.

    Prints a line for each difference (the place, our number, the published one) and a summary; progress goes
    to standard error. What has left the topic or the read model by its retention is counted as not
    comparable. Ends with 0 without differences, 1 with some, 2 if it could not compare everything.

    \b
    Example:
      simusage verify --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from streams import verify as role

    outcome = asyncio.run(role.verify(settings, patience_s=patience, say=typer.echo))
    typer.echo(
        f"{outcome.differences} differences; {outcome.compared} of {settings.kafka.partitions} partitions,"
        f" {outcome.records} usage records, {outcome.places} hours, windows and last words compared;"
        f" {outcome.too_old} too old to compare"
    )
    raise typer.Exit(outcome.exit_code)


@start
def rebuild(
    config: Config = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Longest wait for the worker to fill everything.")
    ] = 60.0,
    log_json: LogJson = False,
) -> None:
    """Have the worker write Redis anew from its tables, while ingestion goes on.

    Needs Redis ([redis]) and a running worker, which notices within seconds. Until it is done, questions are
    answered 503 `rebuilding`, never with a partial number. An emptied Redis is refilled without this command.

    Ends with 0 when everything is there again, with 1 if it is not within the time given.

    \b
    Example:
      simusage rebuild --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from streams import rebuild as role

    try:
        seconds = asyncio.run(role.rebuild(settings, timeout_s=timeout))
    except role.UnfinishedError as error:
        typer.echo(f"simusage: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"the read model is complete again after {seconds:.1f} s")
