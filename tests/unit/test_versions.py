"""Which of several writers of one partition counts, and what shows that a state is not the only owner's."""

from __future__ import annotations

from streams.versions import Versions


def written(term: int, version: int, began: int) -> bytes:
    """The record of a writer of some term."""
    writer = Versions(writer=0, began=began)
    for older in range(1, term):
        writer.load(f"version/{older}", b"[0,0,{},%d,0]" % older)
    writer.succeed(0)
    return writer.write(version, 0, b"{}")[1] or b""


def test_the_later_term_counts_however_far_the_earlier_came() -> None:
    """It had lost the partition, and wrote on for a moment."""
    found = Versions(writer=9, began=0)
    found.load("version/1", written(term=1, version=90, began=1))
    assert found.load("version/2", written(term=2, version=80, began=2)).version == 80
    assert found.succeed(80)


def test_of_two_that_succeed_the_same_the_further_counts() -> None:
    """A worker that was away wrote as it woke up, and the other one went on nevertheless."""
    found = Versions(writer=9, began=0)
    found.load("version/1", written(term=2, version=24, began=2))
    assert found.load("version/2", written(term=2, version=38, began=1)).version == 38
    assert found.succeed(38), "what either of them moved does not show in a replay"


def test_an_undisturbed_succession_needs_nothing() -> None:
    found = Versions(writer=9, began=0)
    found.load("version/1", written(term=1, version=24, began=1))
    assert found.load("version/2", written(term=2, version=38, began=2)).version == 38
    assert not found.succeed(38)


def test_a_writer_of_our_term_or_later_is_another_owner() -> None:
    ours = Versions(writer=9, began=0)
    ours.load("version/1", written(term=1, version=24, began=1))
    ours.succeed(24)
    assert not ours.overheard(written(term=1, version=30, began=1))
    assert ours.overheard(written(term=2, version=30, began=1))
    assert ours.overheard(written(term=3, version=30, began=1))
