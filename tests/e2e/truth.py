"""The simulators' ground truth and the query endpoint's answers, both as rows of one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from tests.waiting import wait_until_sync

DIMENSIONS = ("provider", "country", "network", "sim")

NEVER = datetime.min.replace(tzinfo=UTC)

Place = tuple[str, ...]
"""Start of the hour, then the value of each dimension."""


@dataclass
class Totals:
    """What one place used. `status` is `None` where the truth leaves it open."""

    records: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    total_bytes: int = 0
    undirected_bytes: int = 0
    billed_bytes: int | None = None
    messages: int = 0
    cost: dict[str, Decimal] = field(default_factory=dict)
    status: str | None = "complete"

    def add(self, cell: dict[str, Any]) -> None:
        """Add one cell of the truth."""
        self.records += cell["records"]
        if cell["service"] == "sms":
            # emnify's own pages contradict each other about the direction, so only the total counts.
            self.messages += cell["total"]
        else:
            self.rx_bytes += cell["rx"]
            self.tx_bytes += cell["tx"]
            self.total_bytes += cell["total"]
            self.undirected_bytes += cell["total"] - cell["rx"] - cell["tx"]
            self.billed_bytes = _sum(self.billed_bytes, cell["billed"])
        if cell["cost"] is not None:
            currency = cell["currency"]
            self.cost[currency] = self.cost.get(currency, Decimal(0)) + Decimal(cell["cost"])
        if cell["cost_status"] != "complete":
            self.status = cell["cost_status"]


def true_rows(
    truth: dict[str, Any], tenant: str, since: datetime, dimensions: Sequence[str] = DIMENSIONS
) -> dict[Place, Totals]:
    """Return the tenant's truth by hour and these dimensions, of which the first is the provider."""
    rows: dict[Place, Totals] = {}
    for cell in truth["cells"]:
        if cell["tenant"] == tenant and instant(cell["hour"]) >= since:
            place = (cell["hour"], *(cell[name] for name in dimensions))
            rows.setdefault(place, Totals()).add(cell)
    as_of = instant(truth["as_of"])
    for place, row in rows.items():
        row.status = _status(place, row, as_of)
    return rows


def _status(place: Place, row: Totals, as_of: datetime) -> str | None:
    """KORE bills within a day; the connector holds an hour's money open until a day after the hour's end."""
    billed = instant(place[0]) + timedelta(hours=25)
    if place[1] != "kore" or billed <= as_of:
        return row.status
    # An hour that turned complete between the pause and the last look may be told either way.
    return "pending" if billed > as_of + timedelta(minutes=5) else None


def _sum(one: int | None, other: int | None) -> int | None:
    """Add billed volumes, which most providers do not tell: that is not zero."""
    return other if one is None else one if other is None else one + other


def sums(rows: Iterable[Totals]) -> Totals:
    """Add rows up."""
    total = Totals()
    for row in rows:
        total.records += row.records
        total.rx_bytes += row.rx_bytes
        total.tx_bytes += row.tx_bytes
        total.total_bytes += row.total_bytes
        total.undirected_bytes += row.undirected_bytes
        total.billed_bytes = _sum(total.billed_bytes, row.billed_bytes)
        total.messages += row.messages
        for currency, amount in row.cost.items():
            total.cost[currency] = total.cost.get(currency, Decimal(0)) + amount
    total.status = None
    return total


def told(row: dict[str, Any]) -> Totals:
    """Return one row of an answer, or one aggregate from Kafka, as it was told."""
    assert row["sms"]["undirected_messages"] == row["sms"]["total_messages"]
    return Totals(
        records=row["records"],
        rx_bytes=row["data"]["rx_bytes"],
        tx_bytes=row["data"]["tx_bytes"],
        total_bytes=row["data"]["total_bytes"],
        undirected_bytes=row["data"]["undirected_bytes"],
        billed_bytes=row["data"]["billed_bytes"],
        messages=row["sms"]["total_messages"],
        cost={cost["currency"]: Decimal(cost["amount"]) for cost in row["cost"]},
        status=row["cost_status"],
    )


def differences(found: dict[Place, Totals], truth: dict[Place, Totals]) -> list[str]:
    """Return in words where the two differ, a few of them."""
    wrong = []
    for place in sorted(found.keys() | truth.keys()):
        said, true = found.get(place), truth.get(place)
        if said is not None and true is not None and true.status is None:
            said.status = None
        if said != true:
            wrong.append(f"{place}: told {said}; true {true}")
    return wrong[:10]


class Asker:
    """Asks a running stack's query endpoint and its simulators."""

    def __init__(self, endpoints: dict[str, Any]) -> None:
        self.tenants = sorted(endpoints["tokens"])
        self._endpoints = endpoints
        self._http = httpx.Client(timeout=30)

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def usage(self, tenant: str, **parameters: str | int) -> list[dict[str, Any]]:
        """Return the answers to a usage question, page by page along their links."""
        url = f"{self._endpoints['query']}/v1/usage"
        headers = {"Authorization": f"Bearer {self._endpoints['tokens'][tenant]}"}
        response = self._answer(httpx.URL(url, params=parameters), headers)
        pages = [_good(response)]
        while "next" in response.links:
            response = self._answer(httpx.URL(url).join(response.links["next"]["url"]), headers)
            pages.append(_good(response))
        return pages

    def _answer(self, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        """Ask, and ask again while the read model is being filled: a 503 is no answer."""

        def answer() -> httpx.Response | None:
            response = self._http.get(url, headers=headers)
            return None if response.status_code == 503 else response

        found = wait_until_sync(answer, 60, "the endpoint answers")
        assert found is not None
        return found

    def rows(self, tenant: str, **parameters: str | int) -> dict[Place, Totals]:
        """Return a question's rows by place."""
        found: dict[Place, Totals] = {}
        for page in self.usage(tenant, **parameters):
            for row in page["rows"]:
                place = (row["start"], *(row["group"][name] for name in page["group_by"]))
                assert place not in found
                found[place] = told(row)
        return found

    def simulators(self, path: str, method: str = "GET") -> dict[str, Any]:
        """Ask the simulators' control surface."""
        return _good(self._http.request(method, f"{self._endpoints['simulators']}{path}"))

    def delivered(self) -> int:
        """Return how many records emnify's stream has delivered so far."""
        count: int = self.simulators("/control/status")["emnify"]["delivered"]
        return count

    def more_arrives(self, count: int = 1) -> None:
        """Wait until emnify's stream has delivered so many records more."""
        wanted = self.delivered() + count
        wait_until_sync(lambda: self.delivered() >= wanted, 60, f"{wanted} records are delivered")

    def counted(self) -> int:
        """Return how many records the answers have, of all tenants together."""
        answers = [self.usage(tenant, granularity="all")[0] for tenant in self.tenants]
        return sum(row["records"] for answer in answers for row in answer["rows"])

    def answers_move(self) -> None:
        """Wait until the answers have more records than now: what they show is durable by then."""
        before = self.counted()
        wait_until_sync(lambda: self.counted() > before, 60, f"more than {before} records are counted")

    def settle(self) -> dict[str, Any]:
        """Stop usage, wait until every account says that it is complete beyond that, and return the truth.

        Coverage travels behind the usage that it speaks of, so once the watermark has passed the moment at
        which the last push was acknowledged, nothing may be missing: the caller compares at once.
        """
        self.simulators("/control/pause", "POST")
        wait_until_sync(
            lambda: all(
                self.simulators("/control/status")[name]["pending"] == 0 for name in ("emnify", "onomondo")
            ),
            60,
            "emnify and Onomondo have delivered all",
        )
        drained = datetime.now(UTC)
        for tenant in self.tenants:
            wait_until_sync(
                lambda tenant=tenant: self._complete_until(tenant) > drained,  # type: ignore[misc]
                60,
                f"the watermarks of {tenant} have passed {drained}",
            )
        return self.simulators("/truth")

    def _complete_until(self, tenant: str) -> datetime:
        (answer,) = self.usage(tenant, granularity="all")
        return min(instant(at) if at else NEVER for at in answer["watermark"].values())


def instant(text: str) -> datetime:
    """Read an RFC 3339 instant."""
    return datetime.fromisoformat(text)


def _good(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body
