"""What the read model is told of contexts: the same bytes however many are asked for at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.contexts import Contexts, Place
from streams.devices import Device, Scope

text = st.text(st.characters(codec="utf-8"), max_size=12)
maybe = st.none() | text
scopes = st.tuples(text, text, text)
devices = st.tuples(st.text("0123456789", min_size=19, max_size=19), maybe)
places = st.tuples(maybe, st.lists(text, max_size=3).map(tuple), maybe, maybe, maybe, text, maybe)


@given(st.lists(st.tuples(scopes, devices, places), min_size=1, max_size=20))
def test_values_are_those_of_each_context(met: list[tuple[Scope, Device, Place]]) -> None:
    contexts = Contexts(writer=1)
    numbers = contexts.intern(
        np.array([contexts.devices.number(scope, device) for scope, device, _ in met]),
        np.array([contexts.place(place) for *_, place in met]),
    )
    assert contexts.values(numbers) == [contexts.value(number) for number in numbers.tolist()]
