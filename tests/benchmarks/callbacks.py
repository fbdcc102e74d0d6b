"""Callbacks as emnify's Data Streamer makes them, of the load's fleet, and accounts that take them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp

from streams.errors import UnavailableError
from streams.iccid import luhn_digit
from tests.benchmarks.load import COUNTRIES, NETWORKS_A_COUNTRY, Load, account_of
from tests.benchmarks.services import Rig, say

SECRET: Final = "benchmark-callback-secret"
HEADERS: Final = {"X-Callback-Secret": SECRET}
RECORDS_OF_AN_INTRODUCTION: Final = 500
INTRODUCED_AT_ONCE: Final = 4
READY_WITHIN_S: Final = 60.0

_INTRODUCED: Final = 10**12
"""CDRs from here on introduce SIMs; smaller ones are those that are measured."""


class Stream:
    """Writes records: the n-th one of an owner is of its n-th SIM, all over again."""

    def __init__(self, load: Load) -> None:
        self._tenants = len(load.tenants)
        self._sims = [_sim(number) for number in range(load.spec.sims)]
        self._operators = [
            f'"operator":{{"id":{mnc},"name":"{country} {mnc}","mnc":"{mnc:02d}",'
            f'"country":{{"id":{mcc},"mcc":"{mcc}","name":"{country}"}}}},'
            for country, mcc in COUNTRIES
            for mnc in range(1, NETWORKS_A_COUNTRY + 1)
        ]

    def body(self, owner: int, cdrs: Sequence[int], probe: int | None = None) -> bytes:
        """Write records of one owner that end now; all but the probe are of whole megabytes."""
        now = datetime.now(UTC)
        end = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        start = (now - timedelta(seconds=45)).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = []
        for cdr in cdrs:
            sim = (cdr * self._tenants + owner) % len(self._sims)
            rx, tx = ("0.000001", "0") if cdr == probe else (f"{cdr % 7}.000000", f"{cdr % 3 + 1}.000000")
            total = "0.000001" if cdr == probe else f"{cdr % 7 + cdr % 3 + 1}.000000"
            parts.append(
                f'{{"id":{cdr},"traffic_type":{{"id":5,"description":"Data"}},"start_timestamp":"{start}",'
                f'"end_timestamp":"{end}","volume":{{"total":{total},"rx":{rx},"tx":{tx}}},"cost":0,'
                f'"currency":{{"id":1,"code":"EUR","symbol":"E"}},"imsi_id":{sim},'
                f"{self._operators[sim * 7 % 32]}{self._sims[sim]}"
            )
        return f"[{','.join(parts)}]".encode()


def introductions(load: Load) -> Iterator[tuple[str, bytes]]:
    """Yield bodies in which each SIM occurs once: whose it is has to be published before its first record."""
    stream, each = Stream(load), load.spec.sims // load.spec.tenants
    for owner, tenant in enumerate(load.tenants):
        for first in range(0, each, RECORDS_OF_AN_INTRODUCTION):
            numbers = range(first, min(first + RECORDS_OF_AN_INTRODUCTION, each))
            yield tenant, stream.body(owner, [_INTRODUCED + number for number in numbers])


async def introduce(session: aiohttp.ClientSession, port: int, load: Load) -> None:
    """Push each SIM once, a few callbacks at a time: what is measured is of a fleet that is known."""
    begun = time.monotonic()
    bodies = introductions(load)

    refused = 0

    async def push() -> None:
        nonlocal refused
        for tenant, body in bodies:
            while (status := await _status(session, address_of(port, tenant), body)) == 503:
                refused += 1
            if status != 200:
                raise UnavailableError(f"an introduction of SIMs was answered with {status}")

    await asyncio.gather(*(push() for _ in range(INTRODUCED_AT_ONCE)))
    again = f", {refused} callbacks came again" if refused else ""
    say(f"{load.spec.sims:,} SIMs introduced in {time.monotonic() - begun:.1f} s{again}")


async def _status(session: aiohttp.ClientSession, address: str, body: bytes) -> int:
    async with session.post(address, data=body, headers=HEADERS) as response:
        await response.read()
        return response.status


async def ready(session: aiohttp.ClientSession, rig: Rig, places: Sequence[str]) -> bool:
    """Wait until each of these addresses answers 200; returns whether all do in time."""
    left = list(places)
    deadline = time.monotonic() + READY_WITHIN_S
    while left and time.monotonic() < deadline and rig.died() is None:
        try:
            async with session.get(left[0]) as response:
                if response.status == 200:
                    left.pop(0)
                    continue
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    return not left


def address_of(port: int, tenant: str) -> str:
    """Return where callbacks of a tenant's account go."""
    return f"http://127.0.0.1:{port}/callbacks/{account_of(tenant)}"


def tables(rig: Rig, port: int) -> str:
    """Return the configuration of a receiver at this port, with an account for each tenant."""
    secret = kept(rig.folder, "callback-secret", SECRET)
    parts = [f'[callbacks]\nport = {port}\npublic_url = "http://127.0.0.1:{port}"\n']
    for tenant in rig.tenants:
        # Nobody answers at the provider's address: its stream status is not what is measured.
        parts.append(
            f'[accounts.{account_of(tenant)}]\nprovider = "emnify"\ntenant = "{tenant}"\n'
            f'api_base = "http://127.0.0.1:9"\napplication_token = "{secret}"\n'
            f'callback_secret = "{secret}"\nwatch_interval_s = 3600\n'
        )
    return "\n".join(parts)


def kept(folder: Path, name: str, value: str) -> str:
    """Keep a secret in a file and return the reference to it."""
    path = folder / name
    path.write_text(value, encoding="utf-8")
    return f"file:{path}"


def percentile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile in milliseconds; `None` where that one never came."""
    if not seconds:
        return None
    value = sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]
    return None if value == float("inf") else value * 1000


def _sim(number: int) -> str:
    iccid = f"8988303{number:012d}"
    return (
        f'"imsi":"90143{number:010d}","sim":{{"id":{number},"iccid":"{iccid}{luhn_digit(iccid)}",'
        f'"msisdn":"4236{number:011d}","production_date":"2021-01-01T00:00:00Z"}},'
        f'"endpoint":{{"id":{50_000_000 + number},"name":"device {number}","ip_address":"10.0.0.1",'
        f'"tags":"eu,metering","imei":"35{number:014d}","balance":null}},'
        f'"organisation":{{"id":7,"name":"Fleet"}},'
        f'"tariff":{{"id":1,"name":"Plan A","ratezone":{{"id":2,"name":"Zone 2"}}}}}}'
    )
