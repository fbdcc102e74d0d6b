"""Competition: which of several statements of one identity counts.

The greatest by `(revision, canonical bytes, session)`, so that order, batching and repetition cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson

from streams.cells import Context
from streams.contributions import Table
from streams.index import I64, Bools
from streams.rows import PAYLOAD


class Payload(NamedTuple):
    """What a statement says, one value a column of `PAYLOAD`."""

    start: int
    end: int
    context: int
    flags: int
    rx: int
    tx: int
    total: int
    billed: int
    cost: int

    def canonical(self, context: Context) -> bytes:
        """Return the bytes that decide between two payloads of one revision, alike on every replica."""
        numbers = [str(value) for value in (*self[:2], *self[3:])]
        return orjson.dumps([*numbers, *context])


def payload_at(table: Table, row: int) -> Payload:
    """Return one statement's payload."""
    return Payload(*(int(table[name][row]) for name in PAYLOAD))


@dataclass(slots=True)
class Conflict:
    """Two payloads of one revision of one identity: where the loser stands, in the batch or in the ledger."""

    position: int
    """Position in the batch of the statement that met the other one."""
    loser: Payload
    incoming_lost: bool


class Competition:
    """Judges statements; `context` tells the dimensions behind a context's number."""

    def __init__(self, context: Callable[[int], Context]) -> None:
        self._context = context

    def newest(self, batch: Table, sessions: dict[int, bytes], conflicts: list[Conflict]) -> I64:
        """Return the positions of the statements that count within the batch, one an identity."""
        order = np.argsort(batch["low"], kind="stable")
        low = batch["low"][order]
        twin = low[1:] == low[:-1]
        if not twin.any():
            return np.arange(len(low))
        meeting = np.sort(order[np.append(twin, False) | np.append(False, twin)])
        keep = np.ones(len(low), np.bool_)
        keep[meeting] = False
        keep[self._newest_of(batch, meeting, sessions, conflicts)] = True
        return np.flatnonzero(keep)

    def beat(
        self,
        ties: Bools,
        incoming: Table,
        positions: I64,
        sessions: Mapping[int, bytes],
        stored: Table,
        stored_in: Mapping[int, bytes],
        conflicts: list[Conflict],
    ) -> Bools:
        """Return which of the incoming statements beat those stored, among ties: pairs of one revision.

        `positions` are those in the batch, by which `sessions` are given; `stored_in` goes by pair.
        """
        differs = np.zeros(len(ties), np.bool_)
        for name in PAYLOAD:
            differs |= incoming[name] != stored[name]
        for at in range(len(ties)) if sessions else stored_in:
            differs[at] |= stored_in.get(at) != sessions.get(int(positions[at]))
        wins: Bools = np.zeros(len(ties), np.bool_)
        for at in np.flatnonzero(ties & differs).tolist():
            one, other = payload_at(incoming, at), payload_at(stored, at)
            position = int(positions[at])
            wins[at] = (self._canonical(one), sessions.get(position, b"")) > (
                self._canonical(other),
                stored_in.get(at, b""),
            )
            loser = other if wins[at] else one
            conflicts.append(Conflict(position, loser, incoming_lost=not wins[at]))
        return wins

    def _newest_of(
        self, batch: Table, positions: I64, sessions: dict[int, bytes], conflicts: list[Conflict]
    ) -> I64:
        identity = (batch[name][positions] for name in ("revision", "high", "low"))
        order = positions[np.lexsort(tuple(identity))]
        low, high, revision = (batch[name][order] for name in ("low", "high", "revision"))
        same = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
        last = np.append(~same, True)
        tied = np.flatnonzero(same & (revision[1:] == revision[:-1]))
        if len(tied) and (sessions or _differ(batch, order[tied], order[tied + 1])):
            # Bubble the greater payload towards the end of its run of equal revisions.
            for at in tied.tolist():
                first, second = int(order[at]), int(order[at + 1])
                one, two = payload_at(batch, first), payload_at(batch, second)
                of_one, of_two = sessions.get(first, b""), sessions.get(second, b"")
                if (one, of_one) == (two, of_two):
                    continue
                if (self._canonical(one), of_one) > (self._canonical(two), of_two):
                    order[at], order[at + 1] = second, first
                    one, two, first = two, one, second
                conflicts.append(Conflict(first, one, incoming_lost=True))
        chosen: I64 = order[last]
        return chosen

    def _canonical(self, payload: Payload) -> bytes:
        return payload.canonical(self._context(payload.context))


def _differ(batch: Table, one: I64, two: I64) -> bool:
    return any(bool((batch[name][one] != batch[name][two]).any()) for name in PAYLOAD)
