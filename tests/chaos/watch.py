"""The questioner: asks the real query endpoint all the time and remembers every answer that must not be.

Before the chaos a closed day of every tenant is folded, and no later event touches it. So each answer about
that day is either exactly the known one, or a 503 that says why. Of the tenant that is never corrected it is
also known that its live totals never fall (but when Redis itself comes back with old content, until a worker
has noticed that), and never exceed what was offered to Kafka.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx

from tests.chaos.load import STEADY, Load
from tests.chaos.verdict import Kinds, add, heard, told
from tests.integration.worker_kit import Cells

PATIENT: Final = {"urn:simusage:problem:rebuilding", "urn:simusage:problem:unavailable"}

Rows = dict[tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """One question about the baseline, and its only right answer."""

    tenant: str
    parameters: Mapping[str, str]
    rows: Rows


def questions(load: Load, cells: Cells) -> list[Question]:
    """Return questions about every tenant's baseline: from the windows, and from the cells."""
    day = {"from": _text(load.baseline_start), "to": _text(load.baseline_end)}
    found = []
    for tenant in sorted({tenant for tenant, _, _ in cells}):
        own = {
            (hour, context): sums
            for (owner, hour, context), sums in cells.items()
            if owner == tenant and load.baseline_start <= hour < load.baseline_end
        }
        for granularity, group_by in (("day", ""), ("hour", ""), ("day", "country"), ("hour", "network")):
            kinds: dict[tuple[str, ...], Kinds] = {}
            sims: dict[tuple[str, ...], set[str]] = {}
            for (hour, context), sums in own.items():
                start = hour if granularity == "hour" else load.baseline_start
                key = (_text(start), *([getattr(context, group_by) or ""] if group_by else []))
                add(kinds.setdefault(key, {}), f"{context.service}|{context.currency or ''}", sums)
                sims.setdefault(key, set()).add(context.sim)
            rows = {key: told(kinds[key]) | {"active_sims": len(sims[key])} for key in kinds}
            group = {"group_by": group_by} if group_by else {}
            found.append(Question(tenant, {**day, "granularity": granularity, **group}, rows))
    return found


@dataclass
class Watch:
    """Asks in turn until it is told to end."""

    url: str
    load: Load
    offered: Callable[[], tuple[int, int]]
    """Records and bytes of the steady tenant that were handed to the producer so far."""
    token: Callable[[str], str]
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _floor: tuple[int, int] = (0, 0)
    _forgiven: bool = False

    def forgive(self) -> None:
        """Redis came back with old content: the totals may be old ones until a worker lives to notice it."""
        self._forgiven = True

    async def ask(self, client: httpx.AsyncClient, tenant: str, parameters: Mapping[str, str]) -> Any:
        """Return the answer's body, or `None` after a 503 that says why."""
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {self.token(tenant)}"}
        response = await client.get("/v1/usage", params=dict(parameters), headers=headers)
        self.slowest = max(self.slowest, time.monotonic() - began)
        body = response.json()
        if response.status_code == 200:
            self.answers["complete"] += 1
            return body
        if response.status_code == 503 and body["type"] in PATIENT:
            self.answers[body["type"].rpartition(":")[2]] += 1
            return None
        self.faults.append(f"{tenant} {dict(parameters)}: {response.status_code} {response.text[:300]}")
        return None

    async def check(self, client: httpx.AsyncClient, question: Question) -> bool:
        """Ask one question; whether the right answer came."""
        body = await self.ask(client, question.tenant, question.parameters)
        if body is None:
            return False
        rows: Rows = {
            (row["start"], *(value or "" for value in row["group"].values())): heard(row)
            | {"active_sims": row["active_sims"]}
            for row in body["rows"]
        }
        if rows == question.rows:
            return True
        wrong = sorted(key for key in {*rows, *question.rows} if rows.get(key) != question.rows.get(key))
        self.faults.append(
            f"{question.tenant} {dict(question.parameters)}: {len(wrong)} of {len(question.rows)} rows wrong,"
            f" first {wrong[0]}: got {rows.get(wrong[0])}, want {question.rows.get(wrong[0])}"
        )
        return False

    async def check_steady(self, client: httpx.AsyncClient) -> None:
        """Ask for the steady tenant's live totals: they never fall, and nothing is counted twice."""
        span = {"from": _text(self.load.live_start), "to": _text(self.load.live_end), "granularity": "all"}
        body = await self.ask(client, STEADY, span)
        if body is None:
            return
        row = heard(body["rows"][0]) if body["rows"] else told({})
        seen = (row["records"], row["data"]["total_bytes"] + row["sms"]["total_messages"])
        fallen = seen[0] < self._floor[0] or seen[1] < self._floor[1]
        if fallen and not self._forgiven:
            self.faults.append(f"{STEADY}: live totals fell from {self._floor} to {seen}")
        if any(got > most for got, most in zip(seen, self.offered(), strict=True)):
            self.faults.append(f"{STEADY}: live totals {seen} are more than was ever sent, {self.offered()}")
        if not fallen:
            self._floor, self._forgiven = seen, False

    async def run(self, asked: list[Question]) -> None:
        """Ask until cancelled."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            for question in itertools.cycle(asked):
                try:
                    await self.check(client, question)
                    await self.check_steady(client)
                except httpx.HTTPError as error:
                    self.faults.append(f"the endpoint does not answer: {error!r}")
                await asyncio.sleep(0.02)


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
