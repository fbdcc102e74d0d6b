"""`make bench`: measures the real worker on a real broker and writes docs/benchmarks.json and .md.

Nothing here fails because something is slow. What runs out of time is reported as far as it got.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from streams.errors import SimusageError
from tests.benchmarks import figures, machine
from tests.benchmarks.core import BELONGS_TO as OF_CORE
from tests.benchmarks.core import FLUSH, measure
from tests.benchmarks.figures import FIGURES, Result, Run
from tests.benchmarks.follow import follow, reference
from tests.benchmarks.freshness import BELONGS_TO as OF_FRESHNESS
from tests.benchmarks.freshness import freshness
from tests.benchmarks.growth import BELONGS_TO as OF_GROWTH
from tests.benchmarks.growth import growth
from tests.benchmarks.ingest import Fold, check_exact, fold, two_workers
from tests.benchmarks.load import Load, Spec
from tests.benchmarks.query import BELONGS_TO as OF_QUERY
from tests.benchmarks.query import query
from tests.benchmarks.read_model import Fleet
from tests.benchmarks.receiver import BELONGS_TO as OF_RECEIVER
from tests.benchmarks.receiver import receiver
from tests.benchmarks.services import MakeBroker, Rig, broker_maker, rig, say


@dataclass(frozen=True)
class Sizes:
    """How large the runs are, and how long one may take."""

    name: str
    fat: int
    packed: int
    single: int
    scale: int
    growth: tuple[int, int]
    freshness_s: float
    pushing_s: float
    limit_s: float
    query: tuple[int, float]
    """SIMs in Redis, and seconds of questions."""


FULL = Sizes(
    "full",
    3_000_000,
    1_500_000,
    600_000,
    1_500_000,
    (1_000_000, 5_400_000),
    60.0,
    15.0,
    420.0,
    (100_000, 30.0),
)
QUICK = Sizes("quick", 200_000, 100_000, 20_000, 100_000, (100_000, 300_000), 15.0, 4.0, 120.0, (5_000, 5.0))

_FLEETS = (1_000, 100_000, 1_000_000)

Wanted = frozenset[str]


@dataclass(frozen=True)
class Bench:
    """Everything that a scenario needs."""

    make: MakeBroker
    sizes: Sizes
    wanted: Wanted

    def spec(self, records: int, records_an_event: int = 500, **more: int | bool) -> Spec:
        """Return the load's shape."""
        return Spec(records=records, records_an_event=records_an_event, **more)  # type: ignore[arg-type]


def _result(name: str, went: Fold, *more: str) -> Result:
    return Result(name, went.rate, "; ".join([went.note, *more]), went.cpu)


async def _ours(at: Rig, load: Load, name: str, limit: float) -> tuple[Fold, Result]:
    say(f"{name}: {load.sent:,} records")
    went = await fold(at, load, limit=limit)
    exact = await check_exact(at, load) if went.finished is not None else "totals not compared"
    say(f"{name}: {went.rate or 0:,.0f} records/s, {went.note}; {exact}")
    return went, _result(name, went, exact)


async def _changelog(at: Rig, load: Load, name: str, went: Fold) -> Result:
    if went.finished is None:
        return Result(name, None, "the run was not finished")
    tables = await at.changelog_bytes()
    parts = ", ".join(f"{table} {size / load.rows:.1f}" for table, size in sorted(tables.items()))
    return Result(name, sum(tables.values()) / load.rows, f"{load.rows} ledger rows; of it {parts}")


async def fat(bench: Bench) -> list[Result]:
    """Events of 500 records: the worker, what limits it, and two of it."""
    results = []
    async with rig(bench.make, bench.spec(bench.sizes.fat)) as (at, load):
        await at.load(load.events(bench.sizes.fat))
        limit, wanted = bench.sizes.limit_s, bench.wanted
        if "raw_getmany_decode" in wanted:
            results.append(
                _result("raw_getmany_decode", await follow(at, reference("raw"), load.sent, limit=limit))
            )
        one: Fold | None = None
        if wanted & {"ingest_fat", "changelog_bytes_per_record", "two_worker_speedup"}:
            one, result = await _ours(at, load, "ingest_fat", limit)
            results.append(result)
            await at.end("worker")
            if "changelog_bytes_per_record" in wanted:
                results.append(await _changelog(at, load, "changelog_bytes_per_record", one))
        if one is not None and "two_worker_speedup" in wanted:
            await at.fresh()
            two = await two_workers(at, load, limit=limit)
            results.append(_speedup(one, two))
            for name in list(at.processes):
                await at.end(name)
        if "naive_faust_fat" in wanted:
            went = await follow(at, reference("naive"), load.sent, limit=min(limit, 120))
            results.append(_result("naive_faust_fat", went))
    return results


def _speedup(one: Fold, two: Fold) -> Result:
    # Both workers are at work between these shares: they have joined, and neither has run dry.
    single, double = one.rate_between(0.3, 0.8), two.rate_between(0.3, 0.8)
    say(f"two workers: {double or 0:,.0f} records/s against {single or 0:,.0f}, {two.note}")
    if not single or not double:
        return Result("two_worker_speedup", None, f"too few samples; {two.note}", two.cpu)
    note = f"{double:,.0f} against {single:,.0f} records/s while both are busy; {two.note}"
    return Result("two_worker_speedup", double / single, note, two.cpu)


async def packed(bench: Bench) -> list[Result]:
    """Callbacks of one record, as the publisher packs them: 50 000/s of 20 tenants in 20 ms make 50."""
    records = bench.sizes.packed
    async with rig(bench.make, bench.spec(records, 50)) as (at, load):
        await at.load(load.events(records))
        went, result = await _ours(at, load, "ingest_single", bench.sizes.limit_s)
        await at.end("worker")
        return [result, await _changelog(at, load, "changelog_bytes_per_record_packed_callbacks", went)]


async def one_record(bench: Bench) -> list[Result]:
    """Events of one record: ours, an empty agent and the naive app."""
    records = bench.sizes.single
    results = []
    async with rig(bench.make, bench.spec(records, 1)) as (at, load):
        await at.load(load.events(records))
        if "ingest_one_record_events" in bench.wanted:
            _, result = await _ours(at, load, "ingest_one_record_events", bench.sizes.limit_s)
            results.append(result)
            await at.end("worker")
        for kind, name in (
            ("empty", "empty_agent_one_record_events"),
            ("naive", "naive_faust_one_record_events"),
        ):
            if name in bench.wanted:
                went = await follow(at, reference(kind), load.sent, limit=min(bench.sizes.limit_s, 120))
                results.append(_result(name, went))
    return results


async def shuffled(bench: Bench) -> list[Result]:
    """Records in no order of time: every flush touches every hour."""
    records = bench.sizes.fat // 2
    async with rig(bench.make, bench.spec(records, shuffled=True)) as (at, load):
        await at.load(load.events(records))
        _, result = await _ours(at, load, "ingest_fat_shuffled", bench.sizes.limit_s)
        return [result]


async def grow(bench: Bench) -> list[Result]:
    """Memory, and recovery with a large ledger."""
    small, large = bench.sizes.growth
    async with rig(bench.make, bench.spec(large)) as (at, load):
        return await growth(at, load, small=small, large=large, limit=bench.sizes.limit_s)


async def scale(bench: Bench) -> list[Result]:
    """The worker's CPU time for a record by size of the fleet: while it is met, and once it is known."""
    records, limit = bench.sizes.scale, bench.sizes.limit_s
    costs: dict[str, list[tuple[int, Fold]]] = {"scale_first_cost_ratio": [], "scale_cost_ratio": []}
    for sims in _FLEETS:
        async with rig(bench.make, bench.spec(2 * records, sims=sims)) as (at, load):
            for known, (name, went) in enumerate(costs.items()):
                await at.load(load.events(records))
                say(f"{name}, {sims:,} SIMs: {records:,} records")
                went.append((sims, await fold(at, load, limit=limit, at_least=known * records)))
                await at.end("worker")
            say(await check_exact(at, load))
    return [_scale(name, went) for name, went in costs.items()]


def _scale(name: str, folds: Sequence[tuple[int, Fold]]) -> Result:
    costs = {sims: went.cpu_us_a_record for sims, went in folds}
    notes = [
        f"{sims} SIMs {costs[sims] or 0:.1f} us of CPU a record, {went.rate or 0:,.0f} records/s"
        for sims, went in folds
    ]
    few, many = costs[_FLEETS[0]], costs[_FLEETS[-1]]
    ratio = many / few if few and many else None
    return Result(name, ratio, "; ".join([*notes, *(each for _, went in folds for each in went.problems)]))


async def fresh(bench: Bench) -> list[Result]:
    """Callback to query."""
    async with rig(bench.make, bench.spec(0), spread=True) as (at, load):
        return await freshness(at, load, seconds=bench.sizes.freshness_s)


async def pushed(bench: Bench) -> list[Result]:
    """The callback receiver under load, without a worker behind it."""
    async with rig(bench.make, bench.spec(0)) as (at, load):
        return await receiver(at, load, seconds=bench.sizes.pushing_s)


async def asked(bench: Bench) -> list[Result]:
    """The query endpoint over a large fleet."""
    sims, seconds = bench.sizes.query
    return await query(Fleet(sims=sims), seconds)


async def core(bench: Bench) -> list[Result]:
    """The core alone, in this process: how fast it could be, and how long it stops."""
    return measure(bench.spec(bench.sizes.growth[1]), FLUSH)


Scenario = Callable[[Bench], Awaitable[list[Result]]]

SCENARIOS: Mapping[str, tuple[Scenario, tuple[str, ...]]] = {
    "fat": (
        fat,
        (
            "raw_getmany_decode",
            "ingest_fat",
            "changelog_bytes_per_record",
            "two_worker_speedup",
            "naive_faust_fat",
        ),
    ),
    "single": (packed, ("ingest_single", "changelog_bytes_per_record_packed_callbacks")),
    "one_record": (
        one_record,
        ("ingest_one_record_events", "empty_agent_one_record_events", "naive_faust_one_record_events"),
    ),
    "query": (asked, OF_QUERY),
    "core": (core, OF_CORE),
    "freshness": (fresh, OF_FRESHNESS),
    "receiver": (pushed, OF_RECEIVER),
    "growth": (grow, OF_GROWTH),
    "scale": (scale, ("scale_cost_ratio", "scale_first_cost_ratio")),
    "shuffled": (shuffled, ("ingest_fat_shuffled",)),
}


def chosen(names: Sequence[str]) -> Wanted:
    """Return the figures that names of figures or groups mean, with the baselines they are compared with."""
    if not names:
        return frozenset(name for _, owned in SCENARIOS.values() for name in owned)
    wanted: set[str] = set()
    for name in names:
        if name in SCENARIOS:
            wanted |= set(SCENARIOS[name][1])
        elif any(name in owned for _, owned in SCENARIOS.values()):
            wanted.add(name)
        else:
            known = ", ".join([*SCENARIOS, *(n for _, owned in SCENARIOS.values() for n in owned)])
            raise SystemExit(f"no figure or group is called {name!r}; there are {known}")
    return frozenset(wanted | {FIGURES[name].baseline or name for name in wanted})


def record(folder: Path, results: Iterable[Result], run: Run) -> None:
    """Write results beside what the folder holds already."""
    figures.write(folder, figures.merged(figures.load(folder / "benchmarks.json"), results, run))


def this_run(sizes: str, broker: str) -> Run:
    """Return where and when this is."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Run(date, machine.commit(), sizes, machine.describe(), broker)


async def bench(names: Sequence[str], sizes: Sizes, kafka: str | None, folder: Path) -> bool:
    """Measure; returns whether every total that was compared is exact."""
    make, broker = broker_maker(kafka)
    run = this_run(sizes.name, broker)
    first, rest = machine.cores()
    say(run.machine)
    say(f"{broker}; worker on core {first}, everything else on {rest}; {sizes.name} sizes")
    what = Bench(make, sizes, chosen(names))
    results: list[Result] = []
    for name, (scenario, owned) in SCENARIOS.items():
        if not what.wanted & set(owned):
            continue
        say(f"== {name}")
        cores = first | rest if scenario in {fresh, asked} else rest
        with machine.pinned(cores):
            found = await scenario(what)
        results += found
        record(folder, results, run)
    for row in figures.merged([], results, run):
        say(f"{row['name']:45} {figures.shown(row['value']):>15} {row['unit']}")
    say(f"written to {folder}/benchmarks.json and benchmarks.md")
    return not any("NOT EXACT" in result.note for result in results)


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that benchmarks and peers share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="small sizes, written to build/ unless told")
    made.add_argument(
        "--kafka", metavar="WHICH", help="apache, embedded or HOST:PORT of a running one, whose topics go"
    )
    made.add_argument("--output", type=Path, metavar="FOLDER", help="where the results go [docs]")
    return made


def main() -> int:
    """Run what was asked for."""
    options = parser("Measure the worker, write docs/benchmarks.json and docs/benchmarks.md.")
    options.add_argument(
        "names", nargs="*", metavar="NAME", help=f"groups ({', '.join(SCENARIOS)}) or figures"
    )
    given = options.parse_args()
    folder = given.output or Path("build" if given.quick else "docs")
    try:
        exact = asyncio.run(bench(given.names, QUICK if given.quick else FULL, given.kafka, folder))
    except SimusageError as error:
        say(str(error))
        return 1
    return int(not exact)


if __name__ == "__main__":
    sys.exit(main())
