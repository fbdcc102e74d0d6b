"""The operations of the read model, carried out on dictionaries: they hold what the cells come to."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams import keys
from streams.cells import CELL_BYTES, ID_BYTES, SIM_BYTES, Context, context_from, decode_cells
from streams.events import UsageEvent
from streams.operations import Operation, cell_operations, context_operations, hour_level, of_sims
from streams.rollups import split
from tests.oracle import Oracle, events, fold, fresh_state

Hashes = dict[str, dict[bytes, bytes]]


def carry_out(hashes: Hashes, operations: list[Operation]) -> None:
    """Do to dictionaries what the script does to hashes."""
    for name, key, field, value in operations:
        held = hashes.setdefault(key, {})
        if name == "cells":
            written: dict[bytes, bytes] = {}
            for at in range(0, len(value), SIM_BYTES + CELL_BYTES):
                sim, row = value[at : at + SIM_BYTES], value[at + SIM_BYTES : at + SIM_BYTES + CELL_BYTES]
                written[sim] = written.get(sim, b"") + row
            held.update(written)
        elif name == "gone":
            for at in range(0, len(value), SIM_BYTES):
                held.pop(value[at : at + SIM_BYTES], None)
        elif name == "contexts":
            assert isinstance(field, bytes)
            lines = value.split(b"\n")
            ids = [field[at : at + ID_BYTES] for at in range(0, len(field), ID_BYTES)]
            held.update(zip(ids, lines, strict=True))


@given(st.lists(st.lists(events(), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(1, 3))
def test_wherever_operations_are_cut_the_hashes_hold_the_cells(
    flushes: list[list[UsageEvent]], piece: int
) -> None:
    state = fresh_state()
    hashes: Hashes = {}
    with (
        patch("streams.operations.CELLS_A_PIECE", piece),
        patch("streams.operations.CONTEXTS_A_PIECE", piece),
    ):
        for number, batch in enumerate(flushes):
            fold(state, *batch, offset=number * 10)
            cells = of_sims(state.contexts, state.take_touched().cells)
            told = state.contexts.untold(np.unique(split(cells)[0]))
            carry_out(hashes, list(context_operations(state.contexts, told)))
            level = hour_level(state.rollups, timedelta(days=400))
            carry_out(hashes, list(cell_operations(state.contexts, level, cells)))
            state.contexts.tell(told)
    found: dict[tuple[str, int, Context], dict[str, int]] = {}
    for key, held in hashes.items():
        if key.startswith(keys.cells_key("", 0).removesuffix(":0")):
            tenant, _, hour = key.removeprefix(keys.cells_key("", 0).removesuffix(":0")).partition(":")
            for sim, value in held.items():
                for public, measures in decode_cells(value):
                    context = context_from(hashes[keys.contexts_key(tenant)][public])
                    assert context.sim == sim.decode()
                    found[tenant, int(hour), context] = measures._asdict()
    batches = [each for batch in flushes for each in batch]
    assert found == {
        (tenant, int(at.timestamp()) // 3600, context): sums
        for (tenant, at, context), sums in Oracle().take(batches).cells().items()
    }
