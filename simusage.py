"""The command line of simusage and its composition root: reads the configuration and starts one role."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from connectors.account_commands import backfill, plan
from connectors.commands import deadletters
from connectors.reassign_command import reassign
from connectors.token_commands import token
from streams.commands import Config, LogJson, rebuild, start, verify
from streams.errors import ConfigError
from streams.logs import configure_logging
from streams.settings import load_settings

app = typer.Typer(
    help="Exact, near-real-time usage aggregation for cellular IoT SIMs of several providers.\n\n"
    "Start with `simusage run --demo`: it needs no account, no Docker and no network. In production the "
    "roles `connect`, `worker`, `archive` and `serve` run apart, against your Kafka and Redis.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    # A traceback that shows local variables would show secrets.
    pretty_exceptions_enable=False,
)


def _run(main: Coroutine[Any, Any, None], loop: Callable[[], AbstractEventLoop] | None = None) -> None:
    """Run until it ends by itself or by SIGINT or SIGTERM, which both cancel it in good order."""
    # asyncio and uvicorn both stop cleanly on SIGINT; only for them does SIGTERM need a translation.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control has it ignored by what it starts in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main)


@app.command()
@start
def run(
    demo: Annotated[bool, typer.Option("--demo", help="Run the whole product on this machine.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=1, help="End by itself after so many seconds."),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of logs, secrets and configuration.")
    ] = Path("simusage-data"),
    log_json: LogJson = False,
) -> None:
    """Run everything at once, for a first look: nothing to install, nothing to configure.

    Starts an embedded broker, Redis, simulators of four providers with three tenants, the connectors, the
    worker and the query endpoint as processes of their own, and shows live totals, the URLs, a token for
    each tenant and two curl lines to paste. A process that dies is restarted. Ctrl-C ends all of them.

    The embedded broker keeps its data in memory: broker and Redis start empty together each time.
    DIR/endpoints.json appears as soon as queries can be answered; DIR/logs holds a log of each process.

    \b
    Example:
      simusage run --demo
      simusage run --demo --for 90 --data /tmp/look
    """
    configure_logging(json=log_json)
    if not demo:
        raise ConfigError(
            "run", "no --demo", "say `simusage run --demo`, or start connect, worker and serve apart"
        )
    from connectors.demo.demo import run_demo

    _run(run_demo(data.expanduser().resolve(), seconds, log_json=log_json))


@app.command()
@start
def connect(config: Config = None, log_json: LogJson = False) -> None:
    """Bring usage in: poll the providers and receive their callbacks, for every account configured.

    Needs Kafka, Redis and the accounts' credentials ([kafka], [redis], [callbacks], [accounts.*]). A callback
    is answered with 2xx only after Kafka has acknowledged its records, and a poll's bookmark moves only
    after that, so it may be stopped at any time. Two replicas never poll one account at once.

    \b
    Example:
      EMNIFY_CALLBACK_SECRET=... simusage connect --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    import uvloop

    from connectors import connect as role

    _run(role.run(settings), uvloop.new_event_loop)


@app.command()
@start
def worker(config: Config = None, log_json: LogJson = False) -> None:
    """Count: fold usage events into exact hourly, daily and monthly totals of each tenant.

    Needs Kafka and Redis ([kafka], [redis], [worker], [retention]). Its state lives in Kafka: after a crash
    it goes on where it was, and an emptied Redis is refilled. Start more of them with one [worker] group
    to share the tenants out, up to the number of partitions.

    \b
    Example:
      simusage worker --config config/simusage.toml --log-json
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from connectors.abilities import abilities
    from streams import worker as role

    role.run(settings, abilities(settings).settle)


@app.command()
@start
def archive(config: Config = None, log_json: LogJson = False) -> None:
    """Keep single statements, so that `/v1/usage/records` and `/v1/explain` can show them.

    Needs Kafka and Redis ([kafka], [redis], [archive], [retention]), and memory of some 30 bytes a statement.
    Reads usage.events.v1 beside the worker, which neither waits for it nor knows it. How far it is lies in
    Redis: it may be killed at any time, and fills an emptied Redis anew. Start more of them to share the
    tenants out, up to the number of partitions.

    \b
    Example:
      simusage archive --config config/simusage.toml
      curl -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:8080/v1/usage/records?sim=8988303000008013931"
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from streams import archiving as role

    _run(role.run(settings))


@app.command()
@start
def serve(config: Config = None, log_json: LogJson = False) -> None:
    """Answer queries over HTTP, each token for its own tenant only.

    Needs Redis ([redis], [serve]). Tokens come from `simusage token create`, or from [[serve.tokens]]. Start
    as many as you like; all of them count against the same limits ([serve.limits]).

    \b
    Example:
      simusage serve --config config/simusage.toml
      curl -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:8080/v1/usage?from=...&to=...&granularity=hour"
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from connectors.abilities import abilities
    from streams.api import serve as role

    _run(role.run(settings, abilities(settings)))


@app.command()
@start
def simulate(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file of the simulators; the options below win over it."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one [8900].")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same fleet and usage [1].")
    ] = None,
    sims: Annotated[int | None, typer.Option(help="SIMs of each tenant [20].")] = None,
    history_hours: Annotated[
        int | None, typer.Option(help="Hours of usage that exist at start [72].")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Live usage records a second, whole fleet [2].")] = None,
    callback_url: Annotated[
        str | None, typer.Option(help="Where emnify's Data Streamer pushes to; none: it does not push.")
    ] = None,
    callback_header: Annotated[
        str | None, typer.Option(help="Header of each push that carries the secret [X-Callback-Secret].")
    ] = None,
    callback_secret: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="The secret, as ${NAME} or file:PATH.")
    ] = None,
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Misbehave in these ways, or in `all`; an unknown name lists them."
        ),
    ] = None,
    log_json: LogJson = False,
) -> None:
    """Stand in for the providers, each under its name (/emnify, /kore, /onomondo, /simsy), on one port.

    Speaks their HTTP contracts over a synthetic fleet of three tenants; /truth says what was really used.
    Needs nothing else. Point the accounts' addresses of a configuration at it.

    \b
    Example:
      CALLBACK_SECRET=... simusage simulate --port 8900 --callback-secret '${CALLBACK_SECRET}' \\
        --callback-url http://127.0.0.1:8081/callbacks/emnify-main
    """
    configure_logging(json=log_json)
    from connectors.demo.simulation import load_simulators
    from connectors.simulators import server

    options = {
        "host": host,
        "port": port,
        "seed": seed,
        "sims_per_tenant": sims,
        "history_hours": history_hours,
        "live_records_per_second": rate,
        "emnify.callback_url": callback_url,
        "emnify.callback_header": callback_header,
        "emnify.callback_secret": callback_secret,
        "faults.on": None if faults is None else [name.strip() for name in faults.split(",")],
    }
    _run(server.run(load_simulators(config, options)))


@app.command()
@start
def check(config: Config = None, log_json: LogJson = False) -> None:
    """Try a configuration before it goes live: each key, each connection and each credential.

    Changes nothing. Ends with 0 if all is well, with 1 if something does not work (the table says what would
    help), with 2 if the configuration itself is wrong.

    \b
    Example:
      simusage check --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from rich.console import Console
    from rich.table import Table

    from connectors.check import check as try_everything

    results = asyncio.run(try_everything(settings))
    table = Table("what", "works", "detail", "what would help")
    for result in results:
        table.add_row(result.name, "yes" if result.ok else "NO", result.detail, result.remedy or "")
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


app.command()(plan)
app.command()(backfill)
app.command()(verify)
app.command()(rebuild)
app.command()(reassign)
app.add_typer(deadletters, name="deadletters")
app.add_typer(token, name="token")


def main() -> None:
    """Entry point of the `simusage` command."""
    app(prog_name="simusage")


if __name__ == "__main__":
    main()
