"""`make bench-peers`: other engines beside our worker, on the same topic in the same run.

All but the naive Faust app do the same work: the newest revision of every identity and a total by tenant and
hour, both with a changelog. Ours besides keeps cells, days and months, publishes aggregates and fills Redis.
The peers may use every core and are done with the last record *processed*; our worker has one core and is
done once everything is committed. Each peer has an environment of its own under `build/peers`.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from streams.errors import SimusageError, UnavailableError
from tests.apache import OLDEST_JAVA, prepare
from tests.benchmarks import machine
from tests.benchmarks.__main__ import parser, record, this_run
from tests.benchmarks.figures import Result
from tests.benchmarks.follow import Follower, follow, reference
from tests.benchmarks.ingest import check_exact, fold
from tests.benchmarks.load import Spec
from tests.benchmarks.services import MakeBroker, broker_maker, rig, say

_HERE = Path(__file__).parent
_BUILD = Path(__file__).parents[3] / "build" / "peers"
_BUILD_WITHIN_S = 900


@dataclass(frozen=True)
class Sizes:
    """How large the runs are, and how long one may take."""

    name: str
    fat: int
    single: int
    limit_s: float


FULL = Sizes("full", 2_000_000, 400_000, 300.0)
QUICK = Sizes("quick", 200_000, 40_000, 60.0)


def build() -> list[Follower]:
    """Build what can be built here, and say loudly what cannot."""
    followers = []
    for name, attempt in (
        ("Kafka Streams", _kafka_streams),
        ("Quix Streams", _quix),
        ("naive Faust", _faust),
    ):
        say(f"building {name}")
        try:
            followers += attempt()
        except UnavailableError as error:
            say(f"SKIPPED: {name}: {error}")
    return followers


def _kafka_streams() -> list[Follower]:
    if (lacking := prepare()) is not None:
        raise UnavailableError(f"{lacking} (it wants Java {OLDEST_JAVA})")
    maven, java = shutil.which("mvn"), shutil.which("java")
    if maven is None or java is None:
        raise UnavailableError("there is no Maven")
    folder = _BUILD / "kafka-streams"
    _run([maven, "-q", "-B", "-f", str(_HERE / "kafka-streams" / "pom.xml"), f"-Dfolder={folder}", "package"])
    classes = f"{folder}/kafka-streams-peer-1.jar:{folder}/jars/*"
    command = [java, "-Xms512m", "-Xmx3g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes]
    return [
        Follower(
            f"kafka_streams_{store}",
            [*command, "Peer", "{kafka}", "{topic}", "{group}", "{records}", store, "{folder}/{group}"],
            every_core=True,
        )
        for store in ("memory", "rocksdb")
    ]


def _quix() -> list[Follower]:
    python = _environment("quix")
    arguments = ["{kafka}", "{topic}", "{group}", "{records}", "{folder}/{group}"]
    return [Follower("quix_streams", [python, str(_HERE / "quix_app.py"), *arguments], every_core=True)]


def _faust() -> list[Follower]:
    python = _environment("faust")
    return [Follower("naive_faust", reference("naive", python).command, every_core=True)]


def _environment(name: str) -> str:
    """Return the interpreter of an environment that has what its requirements say."""
    folder, wanted = _BUILD / name, (_HERE / f"{name}-requirements.txt").read_text(encoding="utf-8")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        venv.create(folder, clear=True, with_pip=True)
        _run([str(python), "-m", "pip", "install", "-q", "-r", str(_HERE / f"{name}-requirements.txt")])
        done.write_text(wanted, encoding="utf-8")
    return str(python)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-1500:]}")


async def compare(make: MakeBroker, followers: list[Follower], sizes: Sizes) -> list[Result]:
    """Run every engine on both topics, ours first."""
    results = []
    for shape, records, each in (("fat", sizes.fat, 500), ("single", sizes.single, 1)):
        async with rig(make, Spec(records=records, records_an_event=each)) as (at, load):
            say(f"== {shape}: {records:,} records, {each} an event")
            await at.load(load.events(records))
            went = await fold(at, load, limit=sizes.limit_s)
            exact = await check_exact(at, load) if went.finished is not None else "totals not compared"
            say(f"simusage: {went.rate or 0:,.0f} records/s, {went.note}; {exact}")
            note = f"{went.note}; {exact}"
            results.append(Result(f"peer_simusage_{shape}", went.rate, note, went.cpu))
            await at.end("worker")
            for follower in followers:
                went = await follow(at, follower, load.sent, limit=sizes.limit_s)
                results.append(Result(f"peer_{follower.name}_{shape}", went.rate, went.note, went.cpu))
    return results


def main() -> int:
    """Build the peers, run them and write the results beside those of `make bench`."""
    given = parser("Measure other engines on the same topic in the same run.").parse_args()
    folder = given.output or Path("build" if given.quick else "docs")
    sizes = QUICK if given.quick else FULL
    try:
        followers = build()
        make, broker = broker_maker(given.kafka)
        run = this_run(sizes.name, broker)
        with machine.pinned(machine.cores()[1]):
            results = asyncio.run(compare(make, followers, sizes))
    except SimusageError as error:
        say(str(error))
        return 1
    record(folder, results, run)
    for result in results:
        say(f"{result.name:35} {result.value or 0:>12,.0f} records/s")
    return int(any("NOT EXACT" in result.note for result in results))


if __name__ == "__main__":
    sys.exit(main())
