"""Usage as CSV (RFC 4180): a line for each row, in the columns of the JSON answer made flat. Pure.

A row stays one line: the amounts of several currencies share the column `cost` as `0.12 EUR; 3.00 USD`, and
gaps share theirs as ISO 8601 intervals. What is null in JSON is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from streams.aggregate import describe
from streams.api.query import UsageQuery
from streams.api.rows import Page, second_text
from streams.api.trust import Trusting
from streams.coverage import Covered, watermark
from streams.windows import rfc3339

MEDIA_TYPE: Final = "text/csv"

_DATA: Final = ("rx_bytes", "tx_bytes", "undirected_bytes", "total_bytes", "billed_bytes")
_SMS: Final = ("rx_messages", "tx_messages", "undirected_messages", "total_messages")


def columns(query: UsageQuery) -> list[str]:
    """Return the header of an answer; only the groups that are asked for make it differ."""
    return [
        "start",
        "end",
        *query.group_by,
        "records",
        *_DATA,
        *(f"sms_{name}" for name in _SMS),
        "cost",
        "cost_status",
        "active_sims",
        "active_endpoints",
        "coverage",
        "status",
        "revision",
        "gaps",
    ]


def usage_csv(query: UsageQuery, page: Page, trusting: Trusting) -> bytes:
    """Return the CSV of a page."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns(query))
    for row in page.rows:
        told: dict[str, Any] = describe(row.totals)
        trust: dict[str, Any] = trusting.of(row).described()
        writer.writerow(
            [
                rfc3339(row.start),
                rfc3339(row.end),
                *row.group,
                told["records"],
                *(told["data"][name] for name in _DATA),
                *(told["sms"][name] for name in _SMS),
                "; ".join(f"{each['amount']} {each['currency']}" for each in told["cost"]),
                told["cost_status"],
                row.active_sims,
                row.active_endpoints,
                trust["coverage"],
                trust["status"],
                trust["revision"],
                "; ".join(f"{gap['start']}/{gap['end']}" for gap in trust["gaps"]),
            ]
        )
    return text.getvalue().encode()


def csv_headers(
    query: UsageQuery, accounts: Mapping[str, Covered], lacking: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return what the JSON answer says around its rows; names of accounts are percent-encoded."""
    headers = {
        "X-Usage-Range": f"{rfc3339(query.start)}/{rfc3339(query.end)}",
        "X-Usage-Watermark": "; ".join(
            f"{quote(name, safe='')}={_latest(account)}" for name, account in sorted(accounts.items())
        ),
    }
    if lacking:
        headers["X-Usage-Unsupported-By"] = "; ".join(
            f"{name}={','.join(providers)}" for name, providers in lacking.items()
        )
    return headers


def _latest(account: Covered) -> str:
    latest = watermark(account.intervals)
    return "" if latest is None else second_text(latest)


def wants_csv(accept: str) -> bool:
    """Whether an `Accept` header prefers CSV to JSON; without preference JSON is given."""
    weights = dict(_ranges(accept))
    plain = max(weights.get(name, -1.0) for name in ("application/json", "application/*", "*/*"))
    table = max(weights.get(name, -1.0) for name in (MEDIA_TYPE, "text/*"))
    return table > max(plain, 0.0) or (
        table > 0 and MEDIA_TYPE in weights and "application/json" not in weights
    )


def _ranges(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            found.append((name, float(weight)))
        except ValueError:
            found.append((name, 0.0))
    return found
