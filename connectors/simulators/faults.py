"""Misbehaviour that the simulators can be told to show, each kind under a name of its own."""

from collections.abc import Iterable
from typing import Final

from connectors.simulators.fleet import seeded
from connectors.simulators.usage import Usage

FAULTS: Final[dict[str, str]] = {
    "emnify-duplicates": "three of ten batches of the Data Streamer are delivered twice",
    "emnify-errors": "now and then a 502 in HTML, or an answer that breaks off",
    "emnify-expired-tokens": "a token dies after 25 requests",
    "emnify-shuffle": "the records inside a batch come in any order",
    "emnify-stream-errors": "a push that is refused once turns the stream to Error, until it is restarted",
    "emnify-throttle": "now and then two 429s in a row on statistics",
    "kore-errors": "now and then a 500, a 503, or an answer that breaks off",
    "kore-events-delta-only": "every second session lacks its cumulative volume, as in schema version 1",
    "kore-events-duplicates": "three of ten batches are delivered twice",
    "kore-events-forged": "now and then a batch that KORE never sent comes besides, with an empty signature",
    "kore-events-late": "one event in ten comes after all others that are there",
    "kore-events-lost": "one event in ten is never sent, though never a session's last",
    "kore-events-odd": "types begin with com.twilio.iot, and specversion is 2.0",
    "kore-events-shuffle": "events come in any order",
    "kore-expired-tokens": "a token dies after twelve requests",
    "kore-late-usage": "one record in ten shows some time after it ended, also in closed hours",
    "kore-no-grouping": "grouping by SIM and by fleet is refused, as outside the private beta",
    "kore-null-dimensions": "what was filtered by is null in the rows",
    "kore-number-money": "money is a number",
    "kore-refiled": "one record in ten is filed under another network at first",
    "kore-slow": "every fifth answer takes half a second",
    "kore-throttle": "now and then a 429, with Retry-After or without",
    "onomondo-busy": "every seventh request gets a 429, with its end in x-ratelimit-reset alone",
    "onomondo-cursor-filter": "a cursor that comes with another filter than its own gets a 400",
    "onomondo-errors": "every eleventh request gets a 502 in HTML",
    "onomondo-late-rows": "one row in ten is missing at first, also of days that are over",
    "onomondo-numeric-ids": "sim_id is a number, without its leading zeros",
    "onomondo-raw-key": "a key with Bearer before it gets a 401",
    "onomondo-repeated-rows": "a page begins with the last row of the page before it",
    "onomondo-slow": "every fifth answer takes half a second",
    "onomondo-strict-filter": "/usage without a time filter gets a 400",
    "onomondo-webhook-discard": "an event that is not answered with 200 in time is never sent again",
    "onomondo-webhook-lost": "one data usage event in ten is never sent",
    "onomondo-webhook-shuffle": "events come in any order",
    "onomondo-webhook-twice": "every event comes twice, word for word",
    "simsy-errors": "now and then a 500 or a 504, or an answer that breaks off",
    "simsy-late-rows": "every tenth record is synced later than the others",
    "simsy-shifting-pages": "records turn up between two pages, and equal timestamps come in any order",
    "simsy-slow": "every answer takes a third of a second",
    "simsy-throttle": "now and then a 429 before the limit is reached",
    "simsy-worker": "answers have the forms of the published server: numbers as text, exports as a stream",
}
"""Name and effect; a name begins with its provider's."""

ALL: Final = "all"


def checked_faults(names: Iterable[str]) -> frozenset[str]:
    """Return the faults that are meant: `all` stands for every one. Raises `ValueError`."""
    wanted = frozenset(names)
    if unknown := sorted(wanted - FAULTS.keys() - {ALL}):
        raise ValueError(f"{', '.join(unknown)}: want some of {', '.join(sorted(FAULTS))}, or {ALL}")
    return frozenset(FAULTS) if ALL in wanted else wanted


def one_in_ten(purpose: str, usage: Usage) -> bool:
    """Whether a fault befalls this usage: the same one in every process."""
    return seeded(purpose, usage.id)[0] % 10 == 0
