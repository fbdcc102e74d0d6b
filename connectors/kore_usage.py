"""Which UsageRecords to ask for, so that every byte comes once, with its SIM, network and fleet.

`Group` names one dimension only. So the networks and fleets that occur are learnt first, then each pair of
them is asked for its SIMs. Grouping by SIM and by fleet is in private beta at KORE: where it is refused, the
fleets are tried one by one with `Fleet=`, and the SIMs with `Sim=`. What KORE files under no network or no
fleet is what the parts leave of the whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from connectors.http import ProviderError
from connectors.kore_api import KoreApi, Sim
from connectors.kore_counting import Chunk
from connectors.values import text_of

REFUSED_FOR: Final = timedelta(hours=1)
"""After this a grouping that KORE refused is tried again: access to the private beta may have been given."""

REFUSALS: Final = frozenset({400, 403, 404, 405, 422})
"""How KORE may refuse a grouping, which its documentation does not say. A request that is wrong otherwise
fails without the grouping too, and then shows."""

_AMOUNTS: Final = ("data_upload", "data_download", "data_total")

Query = dict[str, str]
Rows = list[Any]


@dataclass(slots=True)
class _Occurring:
    """What a chunk has usage of."""

    pairs: dict[str, list[str]] = field(default_factory=dict)
    """Networks by fleet."""
    unfiled: bool = False
    """Whether there is usage under no network or no fleet."""


class UsageReader:
    """Reads one account's chunks, page by page."""

    def __init__(self, api: KoreApi) -> None:
        self._api = api
        self._refused: dict[str, datetime] = {}

    @property
    def refused(self) -> list[str]:
        """Groupings that KORE refuses to this account."""
        return sorted(self._refused)

    async def rows(self, chunk: Chunk, sims: Iterable[Sim], now: datetime) -> AsyncIterator[Rows]:
        """Yield the chunk's rows, a page at a time, each with its SIM, network and fleet if it has them.

        Raises `ProviderError`.
        """
        self._refused = {group: at for group, at in self._refused.items() if now - at < REFUSED_FOR}
        occurring = await self._occurring(chunk, now)
        if "sim" not in self._refused:
            begun = False
            try:
                async for page in self._by_group(chunk, occurring):
                    begun = True
                    yield page
                return
            except ProviderError as error:
                if begun:
                    raise
                self._refuse("sim", error, now)
        for sim in sims:
            async for page in self._by_sim(chunk, sim, occurring):
                yield page

    async def totals(self, chunk: Chunk) -> Rows:
        """Return the account's totals of each period, as KORE states them without any group."""
        return [row async for page in self._asked(chunk, {}) for row in page]

    async def _occurring(self, chunk: Chunk, now: datetime) -> _Occurring:
        found = _Occurring()
        networks = await self._groups(chunk, "network", {}, found)
        fleets = await self._fleets(chunk, networks, now, found)
        for fleet, within in fleets.items():
            if within is None:
                alone = len(fleets) == 1 or len(networks) == 1
                within = networks if alone else await self._groups(chunk, "network", {"Fleet": fleet}, found)
            if within:
                found.pairs[fleet] = list(within)
        return found

    async def _fleets(
        self, chunk: Chunk, networks: dict[str, int], now: datetime, found: _Occurring
    ) -> dict[str, dict[str, int] | None]:
        """Return the fleets that occur, and their networks where these are known already."""
        if "fleet" not in self._refused:
            try:
                return dict.fromkeys(await self._groups(chunk, "fleet", {}, found))
            except ProviderError as error:
                self._refuse("fleet", error, now)
        tried = {}
        if networks:
            for fleet in await self._api.fleets():
                tried[fleet.sid] = await self._groups(chunk, "network", {"Fleet": fleet.sid}, found)
        filed = sum(sum(within.values()) for within in tried.values())
        found.unfiled = found.unfiled or filed < sum(networks.values())
        return {fleet: within for fleet, within in tried.items() if within}

    async def _groups(self, chunk: Chunk, group: str, query: Query, found: _Occurring) -> dict[str, int]:
        """Return the SIDs of one dimension that have usage in the chunk, and how much."""
        sids: dict[str, int] = {}
        asked = {**query, "Group": group, "Granularity": "all"}
        async for page in self._api.usage(chunk.low, chunk.high, asked):
            for row in page:
                sid = text_of(row, f"{group}_sid")
                if sid:
                    sids[sid] = _number(row, "data_total")
                found.unfiled = found.unfiled or not sid
        return sids

    async def _by_group(self, chunk: Chunk, occurring: _Occurring) -> AsyncIterator[Rows]:
        """Yield the SIMs of each pair; then what is filed under none, of which the whole is read first.

        In the other order usage that arrives meanwhile would look as if it were filed under none.
        """
        rest = _Rest()
        if occurring.unfiled:
            rest.add([row async for page in self._asked(chunk, {"Group": "sim"}) for row in page])
        for fleet, networks in occurring.pairs.items():
            for network in networks:
                async for page in self._asked(chunk, {"Group": "sim", "Network": network, "Fleet": fleet}):
                    rest.take(page)
                    yield page
        if left := rest.rows():
            yield left

    async def _by_sim(self, chunk: Chunk, sim: Sim, occurring: _Occurring) -> AsyncIterator[Rows]:
        """Yield one SIM's rows: its whole, then by fleet until that is all, its present fleet first."""
        query = {"Sim": sim.sid, "Group": "network"}
        if len(occurring.pairs) == 1 and not occurring.unfiled:
            (fleet,) = occurring.pairs
            async for page in self._asked(chunk, query):
                yield [{**row, "fleet_sid": fleet} if isinstance(row, dict) else row for row in page]
            return
        rest = _Rest("network_sid")
        async for page in self._asked(chunk, query):
            rest.add(page)
        for fleet in sorted(occurring.pairs, key=lambda fleet: fleet != sim.fleet):
            if not rest:
                return
            async for page in self._asked(chunk, {**query, "Fleet": fleet}):
                rest.take(page)
                yield page
        if left := rest.rows():
            yield left

    async def _asked(self, chunk: Chunk, query: Query) -> AsyncIterator[Rows]:
        """Yield rows of the chunk's grain; what was filtered by stands in them, though KORE left it out."""
        given = {f"{name.lower()}_sid": query[name] for name in ("Sim", "Network", "Fleet") if name in query}
        async for page in self._api.usage(chunk.low, chunk.high, {**query, "Granularity": chunk.grain}):
            yield [{**row, **given} if isinstance(row, dict) else row for row in page]

    def _refuse(self, group: str, error: ProviderError, now: datetime) -> None:
        if error.status not in REFUSALS:
            raise error
        self._refused[group] = now


class _Rest:
    """What the parts of some totals leave of them, by period, SIM and perhaps network."""

    def __init__(self, *dimensions: str) -> None:
        self._dimensions = dimensions
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        self._strange: Rows = []

    def __bool__(self) -> bool:
        return bool(self._strange) or any(_number(row, "data_total") > 0 for row in self._rows.values())

    def add(self, rows: Rows) -> None:
        """Add totals. What cannot be read is kept as it is, for the dead letters."""
        for row in rows:
            if isinstance(row, dict) and isinstance(row.get("data_total"), int):
                self._rows[self._key(row)] = dict(row)
            else:
                self._strange.append(row)

    def take(self, parts: Rows) -> None:
        """Take parts away; money too where both are billed."""
        for part in parts:
            whole = self._rows.get(self._key(part)) if isinstance(part, dict) else None
            if whole is None:
                continue
            for name in _AMOUNTS:
                whole[name] = max(0, _number(whole, name) - _number(part, name))
            if whole.get("billed_unit") is not None and whole.get("billed_unit") == part.get("billed_unit"):
                left = _money(whole) - _money(part)
                whole["data_total_billed"] = str(max(left, Decimal(0)))

    def rows(self) -> Rows:
        """Return what is left."""
        return [*self._strange, *(row for row in self._rows.values() if _number(row, "data_total") > 0)]

    def _key(self, row: dict[str, Any]) -> tuple[str, ...]:
        period = row.get("period")
        return (
            text_of(period, "start_time"),
            *(text_of(row, name) for name in ("sim_sid", *self._dimensions)),
        )


def _number(row: object, name: str) -> int:
    value = row.get(name) if isinstance(row, dict) else None
    return value if isinstance(value, int) else 0


def _money(row: dict[str, Any]) -> Decimal:
    value = row.get("data_total_billed")
    try:
        return Decimal(value if isinstance(value, int | str | Decimal) else 0)
    except ArithmeticError:
        return Decimal(0)
