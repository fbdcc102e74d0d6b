"""Finished answers that are kept: as long as they hold, and no more than there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.api.conditional import Finished
from streams.api.kept import KeptAnswers


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 40)), max_size=30))
def test_an_answer_holds_as_long_as_what_it_was_made_from(steps: list[tuple[int, int, int]]) -> None:
    """Whatever is answered out of what is kept is what was kept last, and made from the same."""
    kept, given_last = KeptAnswers(most_bytes=100), dict[int, tuple[int, Finished]]()
    for question, made_from, size in steps:
        found = kept.get(question, made_from)
        assert found is None or given_last[question] == (made_from, found)
        answer = Finished.of("acme", bytes(size), "text/plain")
        kept.keep(question, made_from, answer)
        assert kept.get(question, made_from) is answer
        given_last[question] = made_from, answer


def test_what_was_asked_least_recently_is_forgotten_first() -> None:
    kept = KeptAnswers(most_bytes=100)
    answers = {question: Finished.of("acme", bytes(40), "text/plain") for question in "abc"}
    kept.keep("a", 1, answers["a"])
    kept.keep("b", 1, answers["b"])
    assert kept.get("a", 1) is answers["a"]
    kept.keep("c", 1, answers["c"])
    assert [kept.get(question, 1) for question in "abc"] == [answers["a"], None, answers["c"]]
