"""What one sees of a laptop run: the tenants' current windows, asked from the real query endpoint."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import aiohttp
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors.demo.layout import Layout
from streams.windows import Granularity, window_start

REFRESH_S: Final = 5.0
"""Nine questions a refresh: three of each tenant's hundred a minute."""

WINDOWS: Final[tuple[Granularity, ...]] = ("hour", "day", "month")
_LABELS: Final = {"hour": "%H:00", "day": "%d %b", "month": "%b %Y"}

MEMORY_NOTE: Final = (
    "The embedded broker keeps its data in memory: broker and Redis start empty together, and what is "
    "counted here ends with this run. In production both are yours, and durable."
)


@dataclass(frozen=True, slots=True)
class Line:
    """A tenant's current window, or why there is no number."""

    tenant: str
    window: str
    answer: dict[str, Any] | None
    problem: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return tenant, window, records, data, SMS, cost, active SIMs and watermark as text."""
        if self.answer is None:
            return (self.tenant, self.window, self.problem, "", "", "", "", "")
        watermark = _watermark(self.answer["watermark"])
        if not self.answer["rows"]:
            # Without rows and without coverage there is no data, which is not zero.
            records = "(no data yet)" if watermark == "-" else "0"
            return (self.tenant, self.window, records, "-", "-", "-", "-", watermark)
        row = self.answer["rows"][0]
        return (
            self.tenant,
            self.window,
            f"{row['records']:,}",
            human_bytes(row["data"]["total_bytes"]),
            f"{row['sms']['total_messages']:,}",
            _cost(row),
            f"{row['active_sims']:,}",
            watermark,
        )


class Screen:
    """Shows the run on a terminal as a live table, elsewhere as plain lines."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self._layout = layout
        self._console = console
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """Print one line; above the table where there is one."""
        self._console.print(
            f"{datetime.now(UTC):%H:%M:%S} {text}", markup=False, highlight=False, soft_wrap=True
        )

    def introduce(self) -> None:
        """Say what this is, where it answers, and what to paste."""
        layout = self._layout
        lines = [
            "",
            MEMORY_NOTE,
            "",
            f"query endpoint   {layout.query_url}/v1/usage   (reference: {layout.query_url}/openapi.json)",
            f"simulators       {layout.simulators_url}   (what was really used: /truth)",
            f"Kafka            {layout.kafka}",
            f"Redis            {layout.redis}",
            f"callbacks        {layout.callbacks_url}",
            f"files            {layout.folder} (configuration, endpoints.json, logs)",
            "",
            *(f"token of {name:10} {token.bearer}" for name, token in layout.credentials.items()),
            "",
            "Ask for yourself:",
            *self.curl_lines(),
            "",
        ]
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def curl_lines(self) -> list[str]:
        """Return two command lines that work when pasted, one for each kind of credential."""
        url = f"{self._layout.query_url}/v1/usage"
        first, second, *_ = self._layout.credentials.values()
        return [
            f"curl -sS -H 'Authorization: Bearer {first.bearer}' '{url}?granularity=day&group_by=provider'",
            f"curl -sS -H 'CF-Access-Client-Id: {second.client_id}' "
            f"-H 'CF-Access-Client-Secret: {second.client_secret}' '{url}?granularity=all&group_by=country'",
        ]

    async def show(self) -> None:
        """Refresh until cancelled."""
        live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        async with client() as http:
            with live or nullcontext():
                while True:
                    lines = await current_usage(http, self._layout)
                    if live is not None:
                        live.update(Group(_table(lines), Text("Ctrl-C ends the run.")), refresh=True)
                    else:
                        self._print_plain(lines)
                    await asyncio.sleep(REFRESH_S)

    def _print_plain(self, lines: list[Line]) -> None:
        names = ("", "", "records", "data", "sms", "cost", "sims", "watermark")
        for line in lines:
            tenant, window, *values = line.cells()
            shown = " ".join(
                f"{name}={value}" for name, value in zip(names[2:], values, strict=True) if value
            )
            self.say(f"{tenant} {window}: {shown}")


def client() -> aiohttp.ClientSession:
    """Return an HTTP client that does not wait long."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))


async def current_usage(http: aiohttp.ClientSession, layout: Layout) -> list[Line]:
    """Ask for the current hour, day and month of every tenant, each with the tenant's own token."""
    now = datetime.now(UTC)
    lines = []
    for tenant in layout.credentials:
        for window in WINDOWS:
            start = window_start(now, window)
            name = f"{window} {start.strftime(_LABELS[window])}"
            params = {"granularity": window, "from": start.strftime("%Y-%m-%dT%H:%M:%SZ")}
            lines.append(await _ask(http, layout, tenant, name, params))
    return lines


async def whole_usage(http: aiohttp.ClientSession, layout: Layout) -> list[Line]:
    """Ask for everything that was counted of every tenant."""
    return [await _ask(http, layout, tenant, "all", {"granularity": "all"}) for tenant in layout.credentials]


async def _ask(
    http: aiohttp.ClientSession, layout: Layout, tenant: str, name: str, params: dict[str, str]
) -> Line:
    try:
        async with http.get(
            f"{layout.query_url}/v1/usage",
            params=params,
            headers={"Authorization": f"Bearer {layout.credentials[tenant].bearer}"},
        ) as response:
            if response.status == 200:
                return Line(tenant, name, await response.json())
            return Line(tenant, name, None, f"(answer {response.status}: not yet)")
    except (aiohttp.ClientError, TimeoutError) as error:
        return Line(tenant, name, None, f"(no answer: {type(error).__name__})")


def _table(lines: list[Line]) -> Table:
    table = Table(title=f"Usage at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    for heading in ("tenant", "window"):
        table.add_column(heading)
    for heading in ("records", "data", "SMS", "cost", "active SIMs", "complete until"):
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(*line.cells(), end_section=line.window.startswith("month"))
    return table


def human_bytes(count: int) -> str:
    """Write a volume with the decimal unit that fits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _cost(row: dict[str, Any]) -> str:
    """Write the known money; a `+` says that more is to come or unknown."""
    known = ", ".join(f"{Decimal(cost['amount']):.2f} {cost['currency']}" for cost in row["cost"])
    more = "" if row["cost_status"] == "complete" else "+"
    return f"{known}{more}" if known else str(row["cost_status"] or "-")


def _watermark(watermark: dict[str, str | None]) -> str:
    """Write how far every account is complete: the earliest of them."""
    if not watermark or None in watermark.values():
        return "-"
    return min(datetime.fromisoformat(at) for at in watermark.values() if at).strftime("%d %b %H:%M:%S")
