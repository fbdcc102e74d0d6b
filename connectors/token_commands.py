"""The commands around the tokens of the query endpoint."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

import typer

from streams.commands import Config, LogJson, start
from streams.errors import ConfigError
from streams.logs import configure_logging
from streams.settings import load_settings
from streams.tokens import SCOPES, Scope, bearer, mint

token = typer.Typer(
    help="Tokens of the query endpoint: make them, list them, revoke them.\n\n"
    "Example:\n\n  simusage token create --tenant acme --name dashboard --config config/simusage.toml",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SPAN = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@token.command()
@start
def create(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="The one tenant whose usage it shows.")],
    name: Annotated[str, typer.Option(metavar="TEXT", help="What you call it, for `list`.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help=f"What it may do: {', '.join(SCOPES)}; repeatable [read]."),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Lifetime in hours, days or weeks: 12h, 90d, 4w.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Its end: 2027-03-01T00:00:00Z.")
    ] = None,
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """Make a token and show its secret, once: as a bearer token and as a header pair.

    Only a hash of the secret is kept, in the topic tokens.v1 and from there in Redis. A tenant may have any
    number of tokens, so make the next one before you revoke the last. Needs Kafka and Redis ([kafka],
    [redis]); nothing has to be restarted.

    \b
    Example:
      simusage token create --tenant acme --name dashboard --expires-in 90d --config config/simusage.toml
      simusage token create --tenant acme --scope read --scope export --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    now = datetime.now(UTC)
    if tenant not in settings.tenants:
        raise ConfigError("--tenant", tenant, "want one of tenants in the configuration")
    if len(name) > 100 or not name.isprintable():
        raise ConfigError("--name", name[:40], "want at most 100 printable characters")
    made, secret = mint(tenant, name, _scopes(scope or ["read"]), now, _expiry(expires_in, expires_at, now))
    from connectors.tokens import keep

    asyncio.run(keep(settings, made))
    until = f"expires {_instant(made.expires_at)}" if made.expires_at else "never expires"
    typer.echo(f"token {made.id} of tenant {tenant}: {', '.join(made.scopes)}; {until}")
    typer.echo("Its secret is shown this once. Send either")
    typer.echo(f"  Authorization: Bearer {bearer(made, secret)}")
    typer.echo("or both of")
    typer.echo(f"  CF-Access-Client-Id: {made.id}\n  CF-Access-Client-Secret: {secret}")


@token.command(name="list")
@start
def list_tokens(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant's.")] = None,
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """List the tokens, the oldest first, those that are expired or revoked too.

    Needs Kafka ([kafka]). Those of the configuration ([[serve.tokens]]) are not among them.

    \b
    Example:
      simusage token list --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from rich.console import Console
    from rich.table import Table

    from connectors.tokens import known

    now = datetime.now(UTC)
    table = Table("id", "tenant", "name", "scopes", "state", "created", "expires", "revoked", box=None)
    tokens = [each for each in asyncio.run(known(settings)) if tenant in {None, each.tenant}]
    for each in tokens:
        instants = (_instant(at) for at in (each.created_at, each.expires_at, each.revoked_at))
        table.add_row(
            each.id, each.tenant, each.name or "-", ",".join(each.scopes), each.state(now), *instants
        )
    on_screen = sys.stdout.isatty()
    if tokens:
        Console(soft_wrap=not on_screen, markup=False, width=None if on_screen else 10_000).print(table)
    typer.echo(f"{len(tokens)} tokens")


@token.command()
@start
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    config: Config = None,
    log_json: LogJson = False,
) -> None:
    """Revoke a token: from the next request on nobody is let in with it.

    Needs Kafka and Redis ([kafka], [redis]). Where Redis does not answer, a running `connect` tells it within
    seconds of its return. Cannot be undone; make a new token instead.

    \b
    Example:
      simusage token revoke 4f1c2ab09d3e77aa --config config/simusage.toml
    """
    configure_logging(json=log_json)
    settings = load_settings(config)
    from connectors.tokens import revoke as role

    revoked = asyncio.run(role(settings, token_id, datetime.now(UTC)))
    typer.echo(
        f"token {revoked.id} of tenant {revoked.tenant} is revoked since {_instant(revoked.revoked_at)}"
    )


def _scopes(names: Sequence[str]) -> list[Scope]:
    for name in names:
        if name not in SCOPES:
            raise ConfigError("--scope", name, f"want one of: {', '.join(SCOPES)}")
    return cast("list[Scope]", list(names))


def _expiry(span: str | None, instant: str | None, now: datetime) -> datetime | None:
    if span is not None and instant is not None:
        raise ConfigError("--expires-in, --expires-at", "both", "give one of them")
    if span is not None:
        found = _SPAN.fullmatch(span)
        if found is None:
            raise ConfigError("--expires-in", span, "want a number and h, d or w, as in 90d")
        return now + int(found[1]) * _UNITS[found[2]]
    if instant is None:
        return None
    try:
        at = datetime.fromisoformat(instant)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigError("--expires-at", instant, "want an instant as in 2027-03-01T00:00:00Z")
    if at <= now:
        raise ConfigError("--expires-at", instant, "that is past: want an instant to come")
    return at


def _instant(at: datetime | None) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else "-"
