"""When a worker counts as stuck: lag or a recovery, and nothing that moves."""

from __future__ import annotations

from streams.watchdog import LOOKS, Look, Stall


def look(lag: int = 0, committed: int = 0, recovered: int | None = None) -> Look:
    """What a look at a worker with one partition sees."""
    return Look({0: lag}, {0: committed}, recovered is not None, recovered or 0)


def verdict(*looks: Look | None) -> str | None:
    """The last verdict of a series of looks."""
    stall = Stall()
    return [stall.judge(each) for each in looks][-1]


def test_lag_without_progress_is_a_stall_and_says_where() -> None:
    reason = verdict(*[look(lag=7)] * (LOOKS + 1))
    assert reason == "events wait, by partition: 0: 7"


def test_one_look_too_few_is_not() -> None:
    assert verdict(*[look(lag=7)] * LOOKS) is None


def test_without_lag_a_worker_may_rest() -> None:
    assert verdict(*[look()] * 3 * LOOKS) is None


def test_lag_that_grows_while_offsets_move_is_load() -> None:
    assert verdict(*(look(lag=number, committed=number) for number in range(3 * LOOKS))) is None


def test_a_recovery_that_moves_is_left_in_peace() -> None:
    assert verdict(*(look(lag=7, recovered=number) for number in range(3 * LOOKS))) is None


def test_a_recovery_that_stands_still_is_a_stall() -> None:
    assert verdict(*[look(recovered=5)] * (LOOKS + 1)) == "a recovery does not get on"


def test_while_kafka_is_away_nobody_is_to_blame() -> None:
    """And its return is no stall either: the count begins anew."""
    assert verdict(*[look(lag=7)] * LOOKS, None, *[look(lag=7)] * LOOKS) is None


def test_a_join_that_does_not_end_is_a_stall_though_a_patient_one() -> None:
    """A rebalance that hangs leaves the worker without partitions, and so without lag that could be seen."""
    joining = Look({}, {}, recovering=False, recovered=0, joining=True)
    stall = Stall(joining_looks=2 * LOOKS)
    assert [stall.judge(joining) for _ in range(2 * LOOKS)] == [None] * 2 * LOOKS
    assert stall.judge(joining) == "the group gives it no partitions, nor tells it that none is left"


def test_a_worker_that_stands_by_may_rest() -> None:
    assert verdict(*[Look({}, {}, recovering=False, recovered=0)] * 5 * LOOKS) is None
