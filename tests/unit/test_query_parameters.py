"""What the parameters of a usage question mean, and what each refusal says."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.api.faults import Fault, InvalidQuestionError
from streams.api.query import MAX_LIMIT, PARAMETERS, Position, UsageQuery, parse_usage_query
from streams.api.ranges import window_of

NOW = datetime(2026, 11, 21, 8, 2, 43, tzinfo=UTC)


def ask(question: str, *, tenant: str = "acme", now: datetime = NOW) -> UsageQuery:
    items = parse_qsl(question, keep_blank_values=True)
    return parse_usage_query(tenant, items, now=now, retention_months=18)


def codes(question: str, tenant: str = "acme") -> list[tuple[str, str]]:
    with pytest.raises(InvalidQuestionError) as caught:
        ask(question, tenant=tenant)
    assert all(fault.rule and fault.remedy for fault in caught.value.faults)
    return [(fault.parameter, fault.code) for fault in caught.value.faults]


def test_defaults() -> None:
    """Nothing but the tenant is needed: by day, ungrouped, unfiltered, the longest page."""
    query = ask("")
    assert (query.granularity, query.group_by, query.filters, query.fill) == ("day", (), {}, "none")
    assert (query.limit, query.after, query.plain) == (MAX_LIMIT, None, True)


@pytest.mark.parametrize("question", ["group_by=sim,country", "group_by=sim&group_by=country,sim"])
def test_groups_keep_their_order_and_count_once(question: str) -> None:
    """`group_by` takes commas and repetition alike."""
    assert ask(question).group_by == ("sim", "country")


def test_filters_are_normalised() -> None:
    """Values are a set; the empty string means absent; an ICCID loses its check digit."""
    query = ask("country=NL&country=&country=DE&country=NL&sim=89883030000080139311&network=262-01")
    assert query.filters == {
        "country": (None, "DE", "NL"),
        "network": ("262-01",),
        "sim": ("8988303000008013931",),
    }
    assert ask("tag=&tag=Größe 1&fleet=vans&rat=&service=sms&endpoint=7&account=kore-1").filters == {
        "tag": (None, "Größe 1"),
        "fleet": ("vans",),
        "rat": (None,),
        "service": ("sms",),
        "endpoint": ("7",),
        "account": ("kore-1",),
    }


@pytest.mark.parametrize(
    ("question", "faults"),
    [
        ("granularity=week", [("granularity", "unknown-value")]),
        ("granularity=", [("granularity", "unknown-value")]),
        ("group_by=", [("group_by", "unknown-value")]),
        ("group_by=tags", [("group_by", "unknown-value")]),
        ("group_by=fleet,colour", [("group_by", "unknown-value")]),
        ("account=", [("account", "invalid-value")]),
        ("account=Main", [("account", "invalid-value")]),
        ("service=", [("service", "invalid-value")]),
        ("service=voice", [("service", "invalid-value")]),
        ("tag=%00", [("tag", "invalid-value")]),
        ("fleet=" + "x" * 129, [("fleet", "invalid-value")]),
        ("require=all", [("require", "unknown-value")]),
        ("tz=", [("tz", "unknown-zone")]),
        ("tz=Europe", [("tz", "unknown-zone")]),
        ("tz=../etc/passwd", [("tz", "unknown-zone")]),
        ("tz=Asia/Kolkata", [("tz", "zone-not-whole-hours")]),
        ("tz=Australia/Lord_Howe&from=2026-08-01&to=2026-10-20", [("tz", "zone-not-whole-hours")]),
        ("fill=null", [("fill", "unknown-value")]),
        ("fill=zero&group_by=sim", [("fill", "fill-with-groups")]),
        ("limit=0", [("limit", "out-of-range")]),
        ("limit=1001", [("limit", "out-of-range")]),
        ("limit=ten", [("limit", "out-of-range")]),
        ("limit=%EF%BC%91", [("limit", "out-of-range")]),
        ("provider=", [("provider", "invalid-value")]),
        ("provider=KORE", [("provider", "invalid-value")]),
        ("country=de", [("country", "invalid-value")]),
        ("country=DEU", [("country", "invalid-value")]),
        ("network=26201", [("network", "invalid-value")]),
        ("sim=", [("sim", "invalid-value")]),
        ("sim=123", [("sim", "invalid-value")]),
        ("sim=89883030000080139312", [("sim", "invalid-value")]),
        ("tenant=other", [("tenant", "unknown-parameter")]),
        ("limit=1&limit=2", [("limit", "repeated")]),
        ("from=2026-11-01&from=2026-11-02", [("from", "repeated")]),
        ("&".join(["country=DE"] * 101), [("country", "too-many-values")]),
        ("cursor=", [("cursor", "invalid-cursor")]),
        ("cursor=%00", [("cursor", "invalid-cursor")]),
        ("cursor=e30", [("cursor", "invalid-cursor")]),
        ("cursor=W10", [("cursor", "invalid-cursor")]),
        (
            "foo=1&limit=0&from=x",
            [("foo", "unknown-parameter"), ("limit", "out-of-range"), ("from", "invalid-instant")],
        ),
    ],
)
def test_refused_parameters(question: str, faults: list[tuple[str, str]]) -> None:
    """Every fault is named at once, by parameter and rule."""
    assert codes(question) == faults


@pytest.mark.parametrize(
    ("question", "remedy"),
    [
        ("granularity=HOUR", "granularity=hour"),
        ("country=de", "country=DE"),
        ("network=26201", "network=262-01"),
        ("provider=KORE", "provider=kore"),
        ("service=SMS", "service=sms"),
    ],
)
def test_remedy_guesses_what_was_meant(question: str, remedy: str) -> None:
    """Where only the spelling is wrong, the refusal gives the right one."""
    with pytest.raises(InvalidQuestionError) as caught:
        ask(question)
    assert caught.value.faults[0].remedy == remedy
    assert ask(remedy)


def test_long_input_is_not_echoed_whole() -> None:
    """A refusal shows at most the beginning of what came."""
    with pytest.raises(InvalidQuestionError) as caught:
        ask("country=" + "x" * 5000)
    assert len(caught.value.faults[0].got) == 80


words = st.one_of(
    st.text(max_size=200), st.datetimes().map(lambda at: at.isoformat() + "Z"), st.integers().map(str)
)


@given(st.lists(st.tuples(st.one_of(st.sampled_from(PARAMETERS), st.text(max_size=8)), words), max_size=5))
def test_any_input_is_a_question_or_a_refusal(items: list[tuple[str, str]]) -> None:
    """Whatever comes, the outcome is an aligned range or faults that name rule and remedy."""
    faults: tuple[Fault, ...] = ()
    try:
        query = parse_usage_query("acme", items, now=NOW, retention_months=18)
    except InvalidQuestionError as error:
        faults = error.faults
    else:
        assert query.start < query.end
        assert all(
            query.calendar.start(at, window_of(query.granularity)) == at for at in (query.start, query.end)
        )
        return
    assert faults
    assert all(fault.rule and fault.remedy and len(fault.got) <= 80 for fault in faults)


QUESTION = "granularity=hour&group_by=country&provider=kore"
POSITION = Position(datetime(2026, 11, 20, 7, tzinfo=UTC), ("DE",))


def test_cursor_holds_position_and_range() -> None:
    """A later page has the range of the first, though `to` defaults to now and time has passed."""
    first = ask(QUESTION)
    later = ask(f"{QUESTION}&cursor={first.cursor(POSITION)}&limit=5", now=datetime(2026, 11, 23, tzinfo=UTC))
    assert (later.start, later.end, later.after, later.limit) == (first.start, first.end, POSITION, 5)


def test_cursor_survives_that_its_to_is_no_longer_now() -> None:
    """A `to` that was now when the first page was asked is still good for the next pages."""
    question = "granularity=hour&to=2026-11-21T08:02:43Z"
    cursor = ask(question).cursor(Position(datetime(2026, 11, 1, tzinfo=UTC), ()))
    assert ask(f"{question}&cursor={cursor}", now=datetime(2026, 11, 21, 9, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    "other",
    [
        "granularity=day&group_by=country&provider=kore",
        "granularity=hour&group_by=network&provider=kore",
        "granularity=hour&group_by=country&provider=emnify",
        "granularity=hour&group_by=country",
        "granularity=hour&group_by=country&provider=kore&from=2026-11-01",
    ],
)
def test_cursor_of_another_question_is_refused(other: str) -> None:
    """A cursor is bound to everything that decides the answer's rows."""
    cursor = ask(QUESTION).cursor(POSITION)
    assert codes(f"{other}&cursor={cursor}") == [("cursor", "invalid-cursor")]


def test_cursor_of_another_tenant_is_refused() -> None:
    """The same question of another tenant does not take the cursor."""
    cursor = ask(QUESTION).cursor(POSITION)
    assert codes(f"{QUESTION}&cursor={cursor}", "other") == [("cursor", "invalid-cursor")]


def test_forged_cursor_cannot_widen_the_range() -> None:
    """The range inside a cursor obeys the same limits as one in the question."""
    query = ask(QUESTION)
    wide = UsageQuery(
        "acme", datetime(2020, 1, 1, tzinfo=UTC), query.end, "hour", ("country",), digest=query.digest
    )
    skewed = UsageQuery(
        "acme", query.start.replace(minute=1), query.end, "hour", ("country",), digest=query.digest
    )
    for forged in (wide, skewed):
        assert codes(f"{QUESTION}&cursor={forged.cursor(POSITION)}") == [("cursor", "invalid-cursor")]
