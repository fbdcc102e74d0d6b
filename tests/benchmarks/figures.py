"""The figures: what is measured, what its goal is, and the two files that hold the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import orjson

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured."""

    unit: str
    what: str
    goal: float | None = None
    better: Better = "higher"
    baseline: str | None = None
    """The figure that it is compared with (its name), if any."""


_RATE = "records/s"

FIGURES: Final[dict[str, Figure]] = {
    "ingest_fat": Figure(
        _RATE,
        "one worker on one core, events of 500 records",
        goal=150_000,
        baseline="naive_faust_one_record_events",
    ),
    "ingest_fat_shuffled": Figure(
        _RATE,
        "the same with records in no order of time",
        baseline="naive_faust_one_record_events",
    ),
    "ingest_single": Figure(
        _RATE,
        "callbacks of one record, packed for 20 ms: events of 50 records",
        goal=50_000,
        baseline="naive_faust_one_record_events",
    ),
    "ingest_one_record_events": Figure(
        _RATE,
        "events of one record, against an empty Faust agent",
        baseline="empty_agent_one_record_events",
    ),
    "raw_getmany_decode": Figure(
        _RATE, "aiokafka's getmany and orjson.loads alone, on the topic of ingest_fat"
    ),
    "naive_faust_fat": Figure(
        _RATE, "Faust, `table[key] += value` for each record, on the topic of ingest_fat"
    ),
    "naive_faust_one_record_events": Figure(
        _RATE, "Faust, `table[key] += value`, one record an event: the usual way"
    ),
    "empty_agent_one_record_events": Figure(_RATE, "a Faust agent that does nothing, one record an event"),
    "freshness_p50_ms": Figure(
        "ms",
        "callback accepted until GET /v1/usage shows it, 5 000 records/s in callbacks of 50, open loop",
        goal=100,
        better="lower",
    ),
    "freshness_p99_ms": Figure("ms", "the same", goal=400, better="lower"),
    "freshness_since_due_p50_ms": Figure(
        "ms", "the same from the time at which the callback was due", better="lower"
    ),
    "freshness_since_due_p99_ms": Figure("ms", "the same", better="lower"),
    "callback_accepted_p99_ms": Figure(
        "ms", "callback due until its 2xx, in the same run", goal=50, better="lower"
    ),
    "receiver_callbacks_of_1": Figure(
        "callbacks/s",
        "callbacks of one record acknowledged by the broker, 100 at once, receiver on one core",
        baseline="bare_receiver_callbacks_of_1",
    ),
    "receiver_callbacks_of_50": Figure(
        "callbacks/s", "the same of 50 records", baseline="bare_receiver_callbacks_of_50"
    ),
    "receiver_records_in_batches": Figure(
        _RATE, "batches of 3 000 records, 4 at once", baseline="bare_receiver_records_in_batches"
    ),
    "receiver_accepted_p50_ms": Figure(
        "ms",
        "callback due until its 2xx, 5 000 records/s in callbacks of 50, open loop",
        better="lower",
        baseline="bare_receiver_accepted_p50_ms",
    ),
    "receiver_accepted_p99_ms": Figure(
        "ms", "the same", goal=50, better="lower", baseline="bare_receiver_accepted_p99_ms"
    ),
    "receiver_batch_ms": Figure(
        "ms",
        "slowest 2xx of a batch of 3 000 records, one after the other",
        goal=1_000,
        better="lower",
        baseline="bare_receiver_batch_ms",
    ),
    "bare_receiver_callbacks_of_1": Figure(
        "callbacks/s", "a handler that reads the body and answers, callbacks of one record"
    ),
    "bare_receiver_callbacks_of_50": Figure("callbacks/s", "the same, callbacks of 50 records"),
    "bare_receiver_records_in_batches": Figure(_RATE, "the same, batches of 3 000 records, 4 at once"),
    "bare_receiver_accepted_p50_ms": Figure("ms", "the same, 5 000 records/s, open loop", better="lower"),
    "bare_receiver_accepted_p99_ms": Figure("ms", "the same", better="lower"),
    "bare_receiver_batch_ms": Figure(
        "ms", "the same, slowest of the batches of 3 000 records", better="lower"
    ),
    "query_p99_ms": Figure("ms", "GET /v1/usage of one tenant, in the same run", goal=10, better="lower"),
    "query_month_p99_ms": Figure(
        "ms",
        "a tenant's month by hour, 200 requests/s over HTTP, open loop, 100 000 SIMs, while usage moves",
        goal=10,
        better="lower",
    ),
    "query_sim_p99_ms": Figure(
        "ms", "a SIM's month by day, another SIM with each request, the same", goal=10, better="lower"
    ),
    "recovery_s": Figure(
        "s", "restart until the first new record is in the read model", goal=10, better="lower"
    ),
    "recovery_after_kill_s": Figure(
        "s", "the same after SIGKILL, with a session timeout of 6 s", better="lower"
    ),
    "core_records": Figure(
        _RATE, "the core alone, without Faust, Kafka and Redis, by CPU time: the worker's upper bound"
    ),
    "growth_pause_ms": Figure(
        "ms",
        "longest single merge of the core by CPU time, while its tables grow",
        goal=100,
        better="lower",
    ),
    "core_recovery_s": Figure("s", "loading the blocks that these rows came to, by CPU time", better="lower"),
    "ledger_rows": Figure("rows", "ledger rows at the recovery"),
    "memory_bytes_per_record": Figure(
        "bytes", "resident memory that each further ledger row takes", goal=120, better="lower"
    ),
    "changelog_bytes_per_record": Figure(
        "bytes", "bytes written to the changelog topics for each ledger row", goal=50, better="lower"
    ),
    "changelog_bytes_per_record_packed_callbacks": Figure(
        "bytes", "the same for events of 50 records", better="lower"
    ),
    "scale_cost_ratio": Figure(
        "x",
        "worker's CPU time for each record with 1 000 000 SIMs that it has met before, against 1 000",
        goal=1.5,
        better="lower",
    ),
    "scale_first_cost_ratio": Figure(
        "x", "the same while it meets most of the 1 000 000 SIMs for the first time", better="lower"
    ),
    "two_worker_speedup": Figure(
        "x",
        "two workers against one, events of 500 records; the second shares its core where there are only two",
    ),
    "peer_simusage_fat": Figure(
        _RATE,
        "our worker on one core in the same run, events of 500 records",
        baseline="peer_kafka_streams_memory_fat",
    ),
    "peer_simusage_single": Figure(
        _RATE, "our worker on one core, events of 1 record", baseline="peer_kafka_streams_memory_single"
    ),
    "peer_kafka_streams_memory_fat": Figure(_RATE, "Kafka Streams, in-memory stores, events of 500 records"),
    "peer_kafka_streams_memory_single": Figure(_RATE, "Kafka Streams, in-memory stores, events of 1 record"),
    "peer_kafka_streams_rocksdb_fat": Figure(_RATE, "Kafka Streams, RocksDB, events of 500 records"),
    "peer_kafka_streams_rocksdb_single": Figure(_RATE, "Kafka Streams, RocksDB, events of 1 record"),
    "peer_quix_streams_fat": Figure(_RATE, "Quix Streams (RocksDB), events of 500 records"),
    "peer_quix_streams_single": Figure(_RATE, "Quix Streams (RocksDB), events of 1 record"),
    "peer_naive_faust_fat": Figure(_RATE, "naive Faust, events of 500 records"),
    "peer_naive_faust_single": Figure(_RATE, "naive Faust, events of 1 record"),
}

JUDGED: Final = "full"
"""Sizes at which a goal can be said to be reached or not."""

PROMISED: Final = (
    "ingest_fat",
    "ingest_single",
    "freshness_p50_ms",
    "freshness_p99_ms",
    "receiver_callbacks_of_1",
    "receiver_accepted_p99_ms",
    "receiver_batch_ms",
    "recovery_s",
    "memory_bytes_per_record",
    "changelog_bytes_per_record",
    "scale_cost_ratio",
    "two_worker_speedup",
)


@dataclass(slots=True)
class Result:
    """A measured figure. A `value` of `None` was tried and not reached; `note` says why."""

    name: str
    value: float | None
    note: str = ""
    cpu: dict[str, float] = field(default_factory=dict)
    """Share of a core that each process took while it was measured."""


@dataclass(frozen=True, slots=True)
class Run:
    """Where and when results were measured."""

    date: str
    commit: str
    size: str
    machine: str
    broker: str


def load(path: Path) -> list[dict[str, Any]]:
    """Return the figures of a result file; none where it does not exist."""
    return list(orjson.loads(path.read_bytes())) if path.exists() else []


def merged(known: Iterable[Mapping[str, Any]], results: Iterable[Result], run: Run) -> list[dict[str, Any]]:
    """Replace what was measured anew; each row stands beside the baseline of its own run if there is one."""
    rows: dict[str, dict[str, Any]] = {row["name"]: dict(row) for row in known if row["name"] in FIGURES}
    for result in results:
        rows[result.name] = {
            "name": result.name,
            "unit": FIGURES[result.name].unit,
            "value": None if result.value is None else rounded(result.value),
            "note": result.note,
            "cpu": {name: round(share, 2) for name, share in result.cpu.items()},
            "run": asdict(run),
        }
    for name, row in rows.items():
        figure = FIGURES[name]
        value, beside = row["value"], rows.get(figure.baseline or "")
        if beside is None:
            row["baseline"] = None
        elif row.get("baseline") is None or beside["run"] == row["run"]:
            row["baseline"] = beside["value"]
        baseline = row["baseline"]
        row["ratio"] = rounded(value / baseline) if value is not None and baseline else None
        row["goal"] = figure.goal
    order = ("name", "unit", "value", "baseline", "ratio", "goal", "note", "cpu", "run")
    return [{key: rows[name][key] for key in order} for name in FIGURES if name in rows]


def rounded(value: float) -> float:
    """Keep three significant digits, and whole numbers whole: more would pretend."""
    return (
        int(round(value, 2 - len(str(int(abs(value)))) + 1)) if abs(value) >= 100 else float(f"{value:.3g}")
    )


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `benchmarks.json`, and `benchmarks.md` made from it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = b",\n".join(b"  " + orjson.dumps(row) for row in rows)
    (folder / "benchmarks.json").write_bytes(b"[\n" + lines + b"\n]\n")
    (folder / "benchmarks.md").write_text(markdown(rows), encoding="utf-8")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for people."""
    runs: list[Mapping[str, Any]] = []
    for row in rows:
        if row["run"] not in runs:
            runs.append(row["run"])
    parts = [_HEAD]
    for number, run in enumerate(runs, start=1):
        parts += [
            f"## Run {number}: {run['date']}\n",
            f"* Machine: {run['machine']}",
            f"* Broker: {run['broker']}",
            f"* Commit: {run['commit']}",
            f"* Sizes: {run['size']}\n",
            "| figure | value | unit | baseline | ratio | goal | reached | what |",
            "|---|---:|---|---:|---:|---:|---|---|",
        ]
        mine = [row for row in rows if row["run"] == run]
        parts += [_line(row) for row in mine]
        notes = [f"* `{row['name']}`: {row['note']}" for row in mine if row["note"]]
        parts += ["", "Notes:\n", *notes] if notes else []
        shares = [f"* `{row['name']}`: {_shares(row['cpu'])}" for row in mine if row["cpu"]]
        parts += ["", "CPU of each process (1 is a whole core):\n", *shares] if shares else []
        parts.append("")
    return "\n".join(parts)


def _line(row: Mapping[str, Any]) -> str:
    figure = FIGURES[row["name"]]
    cells = (
        f"`{row['name']}`",
        shown(row["value"]),
        row["unit"],
        shown(row["baseline"]) if figure.baseline else "",
        shown(row["ratio"]) if figure.baseline else "",
        "" if figure.goal is None else shown(figure.goal),
        _reached(figure, row["value"], row["run"]["size"]),
        figure.what,
    )
    return f"| {' | '.join(cells)} |"


def _reached(figure: Figure, value: float | None, size: str) -> str:
    """Judge a goal; small sizes cannot: a small ledger restarts quickly, a short run barely warms."""
    if figure.goal is None:
        return ""
    if size != JUDGED:
        return "not judged"
    if value is None:
        return "no"
    return "yes" if (value >= figure.goal) == (figure.better == "higher") or value == figure.goal else "no"


def shown(value: float | None) -> str:
    """Write a number with thin thousands, or that there is none."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:g}"


def _shares(cpu: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in cpu.items())


_HEAD = """# Benchmarks

Made by `make bench` and `make bench-peers` from `benchmarks.json`; do not edit. The worker is the real
process (`simusage worker`) with its exact ledger, durable changelogs and Redis filled with everything that
queries read. It is pinned to one core; broker, Redis and load have the others. Rates are usage records a
second, from the first visible progress until the last offset is committed and its output is in Redis. After
each ingest run the totals in Redis are compared with what the load must come to.

The load: 20 tenants, 100 000 SIMs, 24 hours, 4 countries x 8 networks, 5 % duplicates, 2 % corrections.
Freshness and callbacks are an open loop: each callback is due at a fixed time, and its wait counts from then.
The receiver is the real process (`simusage connect`) on one core without a worker behind it; a callback
counts once the broker has acknowledged its records. Its baseline is a handler that only reads the body.
"""
