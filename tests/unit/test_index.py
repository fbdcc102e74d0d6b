"""The hash index and the columns beneath it, against a plain dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.columns import Columns, Growing
from streams.index import FULL, I64, U64, Bools, Index, missing
from streams.sums import WIDTH, Sums


def found(index: Index, keys: U64, known: U64) -> I64:
    def same(rows: I64, at: I64) -> Bools:
        equal: Bools = known[rows] == keys[at]
        return equal

    return index.find(keys, same)


def some(seed: int, count: int, tags: int) -> U64:
    """Return distinct keys; the fewer tags, the more of them can be told apart only by whole keys."""
    chance = np.random.default_rng(seed)
    drawn = chance.integers(0, tags, count, np.uint64) << np.uint64(32)
    return drawn | np.arange(count, dtype=np.uint64)


steps = st.lists(st.tuples(st.sampled_from(("place", "remove")), st.integers(1, 3 * FULL)), max_size=6)


@given(steps, st.integers(0, 2**32 - 1), st.sampled_from((2**16, 2**32)))
def test_an_index_finds_what_was_placed_and_not_removed(
    steps: list[tuple[str, int]], seed: int, tags: int
) -> None:
    keys = some(seed, 6 * 3 * FULL, tags)
    chance = np.random.default_rng(seed + 1)
    index, wanted, next_row = Index(), np.full(len(keys), -1, np.int64), 0
    for step, count in steps:
        if step == "place":
            rows = np.arange(next_row, next_row + count)
            next_row += count
            index.place(keys[rows], rows)
            wanted[rows] = rows
        else:
            live = np.flatnonzero(wanted >= 0)
            gone = chance.choice(live, min(count, len(live)), replace=False)
            index.remove(keys[gone], gone)
            wanted[gone] = -1
        assert (found(index, keys, keys) == wanted).all()


def test_an_index_does_not_grow_by_what_comes_and_goes() -> None:
    keys = some(1, 100 * FULL, 2**32)
    index = Index()
    sizes = set()
    for at in range(0, len(keys), FULL):
        rows = np.arange(at, at + FULL)
        index.place(keys[rows], rows)
        sizes.add(index.nbytes)
        index.remove(keys[rows], rows)
    assert (found(index, keys, keys) == -1).all()
    assert max(sizes) <= 4 * min(sizes)


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_what_is_missing(values: list[int], wanted: list[int]) -> None:
    found = missing(np.array(values, np.uint64), np.array(wanted, np.uint64))
    assert found.tolist() == sorted(set(wanted) - set(values))


@pytest.mark.parametrize(("key", "row"), [(5 << 32, 8), (6 << 32, 7)])
def test_removing_what_is_not_there_is_an_error(key: int, row: int) -> None:
    index = Index()
    index.place(np.array([5 << 32], np.uint64), np.array([7]))
    with pytest.raises(KeyError, match=f"row {row}"):
        index.remove(np.array([key], np.uint64), np.array([row]))


def test_keys_that_are_no_hashes_are_an_error_and_take_no_memory() -> None:
    index = Index()
    keys = np.arange(2 * FULL, dtype=np.uint64)
    with pytest.raises(OverflowError, match="one and the same 32 bits"):
        index.place(keys, np.arange(len(keys)))
    assert index.nbytes < 100_000_000


def test_growing_keeps_what_is_there_even_while_a_view_of_it_is_in_use() -> None:
    array = Growing(np.int64)
    array.grow(10)
    array.array[:] = np.arange(10)
    view = array.array
    array.grow(1_000_000)
    assert array.array[:10].tolist() == view.tolist() == list(range(10))
    assert not array.array[10:].any()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3_000)), max_size=8))
def test_columns_hand_out_released_rows_again_and_zeroed(steps: list[tuple[bool, int]]) -> None:
    columns = Columns(number=np.int64, text="S3")
    used: set[int] = set()
    highest = 0
    for extend, count in steps:
        if extend:
            rows = columns.extend(count)
            assert used.isdisjoint(rows.tolist())
            assert not columns["number"][rows].any()
            assert not columns["text"][rows].any()
            columns["number"][rows], columns["text"][rows] = 7, b"abc"
            used.update(rows.tolist())
        else:
            gone = sorted(used)[: min(count, len(used))]
            columns.release(np.array(gone, np.int64))
            used.difference_update(gone)
        highest = max(highest, len(used))
        assert len(columns) == len(used)
        assert int((columns["number"] != 0).sum()) == len(used)
    assert len(columns["number"]) == highest


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 50), min_size=1)), max_size=10))
def test_sums_forget_what_is_removed_and_begin_anew(steps: list[tuple[bool, set[int]]]) -> None:
    sums, wanted = Sums(), dict[int, int]()
    for add, chosen in steps:
        keys = np.array(sorted(chosen), np.uint64)
        if add:
            sums.add(np.concatenate((keys, keys)), np.ones((2 * len(keys), WIDTH), np.int64))
            for key in chosen:
                wanted[key] = wanted.get(key, 0) + 2
        else:
            sums.remove(keys)
            for key in chosen:
                wanted.pop(key, None)
        live = sums.live()
        assert len(sums) == len(wanted)
        assert dict(zip(live.tolist(), sums.matrix(sums.find(live))[:, 4].tolist(), strict=True)) == wanted
