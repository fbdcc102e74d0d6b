"""Paging: every row of a list comes once, whatever the provider does at the ends of its pages."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http import Answer, Call, Failure, ProviderError
from connectors.paging import Page, Pages, cursor, following, linked, listed, numbered, offset, settled, whole

LIST = Call("GET", "https://api.example/v1/rows", {"filter": "time:2025-05-09"})


class Book:
    """A list in pages, answered as `answer` says; keeps what was asked."""

    def __init__(self, answer: Callable[[Call], Any]) -> None:
        self.asked: list[Call] = []
        self._answer = answer

    async def get(self, call: Call) -> Answer:
        self.asked.append(call)
        assert len(self.asked) < 100, "the list is read without end"
        return Answer(self._answer(call), {})


def read(call: Call, answer: Answer) -> Page:
    body = answer.body
    return Page(
        listed(call, body, "rows"),
        total=whole(body.get("total")),
        pages=whole(body.get("pages")),
        following=following(call, body.get("next")),
    )


async def rows(pages: Pages) -> list[Any]:
    return [row async for page in pages for row in page.items]


def cut(items: list[Any], size: int) -> list[list[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


LISTS = st.integers(0, 12)
SIZES = st.integers(1, 5)


@given(count=LISTS, size=SIZES, stated=st.booleans(), repeats=st.booleans())
async def test_numbered_pages_end_by_count_by_a_short_page_by_an_empty_or_a_repeated_one(
    count: int, size: int, *, stated: bool, repeats: bool
) -> None:
    pages = cut(list(range(count)), size)

    def answer(call: Call) -> Any:
        number = int(call.params["page"]) - 1
        beyond = pages[-1] if repeats and pages else []
        found = {"rows": pages[number] if number < len(pages) else beyond}
        return found | ({"pages": len(pages)} if stated else {})

    book = Book(answer)
    assert await rows(numbered(book.get, LIST, read)) == list(range(count))
    assert all(call.params["filter"] == "time:2025-05-09" for call in book.asked)
    assert await rows(numbered(book.get, LIST, read, full=size)) == list(range(count))


async def test_a_stated_number_of_pages_and_a_certain_size_save_the_request_past_the_end() -> None:
    book = Book(lambda call: {"rows": [call.params["page"]], "pages": "2"})
    assert await rows(numbered(book.get, LIST, read)) == ["1", "2"]
    assert len(book.asked) == 2
    short = Book(lambda _call: {"rows": [1]})
    assert await rows(numbered(short.get, LIST, read, full=2)) == [1]
    assert len(short.asked) == 1


@given(count=LISTS, size=SIZES, stated=st.booleans())
async def test_offsets_end_at_the_total_or_at_an_empty_page(count: int, size: int, *, stated: bool) -> None:
    def answer(call: Call) -> Any:
        start = int(call.params["offset"])
        return {"rows": list(range(count))[start : start + size], "total": count if stated else None}

    assert await rows(offset(Book(answer).get, LIST, read)) == list(range(count))


@given(count=LISTS, size=SIZES)
async def test_a_cursor_goes_with_the_filter_that_it_belongs_to(count: int, size: int) -> None:
    pages = cut(list(range(count)), size) or [[]]

    def answer(call: Call) -> Any:
        assert call.params["filter"] == "time:2025-05-09"
        number = int(call.params.get("next_page", "c0=").strip("c="))
        return {"rows": pages[number], "next": f"c{number + 1}=" if number + 1 < len(pages) else ""}

    assert await rows(cursor(Book(answer).get, LIST, read)) == list(range(count))


@given(count=LISTS, size=SIZES)
async def test_an_address_of_the_next_page_is_followed_as_it_stands(count: int, size: int) -> None:
    pages = cut(list(range(count)), size) or [[]]

    def answer(call: Call) -> Any:
        number = int(call.url.partition("PageToken=")[2] or 0)
        assert bool(call.params) == (number == 0)
        there = f"{LIST.url}?PageToken={number + 1}" if number + 1 < len(pages) else None
        return {"rows": pages[number], "next": there}

    assert await rows(linked(Book(answer).get, LIST, read)) == list(range(count))


@pytest.mark.parametrize(
    "there",
    ["https://elsewhere.example/v1/rows?page=2", "http://api.example/v1/rows?page=2", "/v1/rows?page=2"],
)
async def test_an_address_elsewhere_is_not_asked(there: str) -> None:
    book = Book(lambda _call: {"rows": [1], "next": there})
    with pytest.raises(ProviderError, match="another address") as caught:
        await rows(linked(book.get, LIST, read))
    assert caught.value.failure is Failure.CONFIG
    assert len(book.asked) == 1


async def test_a_circle_is_told_from_a_list() -> None:
    looped = Book(lambda _call: {"rows": [1], "next": "https://api.example/v1/rows?page=2"})
    with pytest.raises(ProviderError, match="in a circle"):
        await rows(linked(looped.get, LIST, read))
    again = Book(lambda _call: {"rows": [1], "next": "c"})
    with pytest.raises(ProviderError, match="in a circle"):
        await rows(cursor(again.get, LIST, read))


@pytest.mark.parametrize("body", [None, [], {"rows": None}, {"rows": {"0": 1}}, {"rows": [], "next": 7}])
async def test_another_shape_is_an_error_and_no_empty_list(body: Any) -> None:
    with pytest.raises(ProviderError) as caught:
        await rows(cursor(Book(lambda _call: body).get, LIST, read))
    assert caught.value.failure is Failure.PROVIDER


class Shifting:
    """A list, newest first, that gains or loses a row before the page that `at` counts."""

    def __init__(self, count: int, size: int, at: int, change: str) -> None:
        self.list = list(range(count, 0, -1))
        self.size, self.at, self.change, self.served = size, at, change, 0

    async def read(self) -> Pages:
        number = 0
        while True:
            self.served += 1
            if self.served == self.at:
                if self.change == "gain":
                    self.list.insert(0, self.list[0] + 1)
                elif self.change == "late":
                    self.list.insert(len(self.list) // 2, 1000)
                else:
                    self.list.pop(0)
            page = self.list[number * self.size : (number + 1) * self.size]
            if not page:
                return
            yield Page(page, total=len(self.list))
            number += 1


@given(
    count=st.integers(2, 20),
    size=SIZES,
    at=st.integers(1, 12),
    change=st.sampled_from(["gain", "late", "lose"]),
)
async def test_rows_that_move_between_pages_all_come_and_each_once(
    count: int, size: int, at: int, change: str
) -> None:
    shifting = Shifting(count, size, at, change)
    before = set(shifting.list)
    found = [row async for fresh in settled(shifting.read, lambda row: row) for row in fresh]
    assert len(found) == len(set(found))
    assert set(shifting.list) & before <= set(found)


async def test_a_list_that_repeats_a_row_for_ever_is_read_three_times_and_believed() -> None:
    reads = 0

    async def read_twice() -> Pages:
        nonlocal reads
        reads += 1
        yield Page([1, 2])
        yield Page([2, 3])

    assert [row async for fresh in settled(read_twice, lambda row: row) for row in fresh] == [1, 2, 3]
    assert reads == 3


class Unordered:
    """A list without an order of its own: every page is a page of another one. Its total is its length."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.list = list(range(count))
        self.size = size
        self.random = Random(seed)
        self.pages = 0

    async def read(self) -> Pages:
        for number in range(0, len(self.list), self.size):
            self.random.shuffle(self.list)
            self.pages += 1
            yield Page(self.list[number : number + self.size], total=len(self.list))


@given(count=st.integers(0, 8), size=st.integers(4, 9), seed=st.integers(0, 2**32))
async def test_kept_rows_are_all_there_once_as_many_have_come_as_the_total_says(
    count: int, size: int, seed: int
) -> None:
    unordered = Unordered(count, size, seed)
    rows = settled(unordered.read, lambda row: row, passes=200, kept=True)
    found = [row async for fresh in rows for row in fresh]
    # Up to four quiet readings end it all the same.
    assert set(found) == set(range(count)) or unordered.pages >= 5
    assert len(found) == len(set(found))


async def test_kept_rows_that_come_at_once_are_read_once() -> None:
    unordered = Unordered(5, 5, 1)
    assert [fresh async for fresh in settled(unordered.read, lambda row: row, kept=True)]
    assert unordered.pages == 1


async def test_a_total_that_counts_a_name_twice_is_not_waited_for_without_end() -> None:
    reads = 0

    async def twice() -> Pages:
        nonlocal reads
        reads += 1
        yield Page(["same", "same"], total=2)

    found = [row async for fresh in settled(twice, lambda row: row, passes=9, kept=True) for row in fresh]
    assert (found, reads) == (["same"], 5)


async def test_a_list_that_never_comes_to_rest_is_told() -> None:
    state = [0]

    async def restless() -> Pages:
        state[0] += 1
        yield Page([state[0]], total=5)

    with pytest.raises(ProviderError, match="still move") as caught:
        assert [fresh async for fresh in settled(restless, lambda row: row)]
    assert caught.value.failure is Failure.TRANSIENT


def test_counts_are_read_as_numbers_or_text_and_nothing_else() -> None:
    assert [whole(value) for value in (3, "3", 0)] == [3, 3, 0]
    assert [whole(value) for value in (None, "x", -1, True, 1.5, "9" * 30)] == [None] * 6
