"""Contexts: the combinations of dimensions that occur, each interned once as a small number.

A context's lasting name is its writer and its number there, so that two writers never mean different things
by one name; its public id is a digest of its content, alike everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from streams.cells import ID_BYTES, SIM_BYTES, Context, context_id, context_value
from streams.columns import Columns
from streams.events import MAX_BYTES
from streams.index import I64, U64, Bools


class Group(NamedTuple):
    """The dimensions that windows keep apart: few values each, so a window stays small."""

    provider: str
    country: str | None
    network: str | None
    service: str
    currency: str | None


Scope = tuple[str, str, str]
"""Tenant, provider, account: alike for all records of an event."""

Tail = tuple[
    str, str | None, str | None, tuple[str, ...], str | None, str | None, str | None, str, str | None
]
"""A context without its scope: SIM, endpoint, fleet, tags, country, network, RAT, service, currency."""

Numbers = npt.NDArray[Any]


class Contexts:
    """All contexts of one partition."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._own = 0
        self._scopes: dict[Scope, dict[Tail, int]] = {}
        self._all: list[tuple[Scope, Tail]] = []
        self._by_name: dict[int, int] = {}
        self._groups: dict[tuple[str | None, ...], int] = {}
        self.group_list: list[tuple[str, Group]] = []
        """Tenant and group of each group number."""
        self._owners: dict[str, int] = {}
        self._owner_of_group: list[int] = []
        self._sims: dict[tuple[str, str], int] = {}
        self._latest: list[int] = []
        self._columns = Columns(
            name=np.uint64,
            group=np.uint32,
            sim=np.uint32,
            previous=np.int64,
            digits=f"S{SIM_BYTES}",
            public=f"S{ID_BYTES}",
            told=np.bool_,
        )
        self._pending: list[tuple[int, int, int, int]] = []
        self._unsaved: list[int] = []

    def __len__(self) -> int:
        return len(self._all)

    def scope(self, scope: Scope) -> dict[Tail, int]:
        """Return the numbers of one scope's contexts by tail, to look them up in bulk."""
        return self._scopes.setdefault(scope, {})

    def intern(self, scope: Scope, tail: Tail) -> int:
        """Return the number of a context, a new one if it was never seen."""
        found = self.scope(scope).get(tail)
        if found is not None:
            return found
        number = self._add(scope, tail, self._writer << 32 | self._own)
        self._own += 1
        self._unsaved.append(number)
        return number

    def _add(self, scope: Scope, tail: Tail, name: int) -> int:
        number = len(self._all)
        self._all.append((scope, tail))
        self.scope(scope)[tail] = number
        self._by_name[name] = number
        tenant, provider, _ = scope
        kind = (provider, tail[4], tail[5], tail[7], tail[8])
        group = self._groups.setdefault((tenant, *kind), len(self.group_list))
        if group == len(self.group_list):
            self.group_list.append((tenant, Group(*kind)))
            self._owner_of_group.append(self._owners.setdefault(tenant, len(self._owners)))
        sim = self._sims.setdefault((tenant, tail[0]), len(self._latest))
        if sim == len(self._latest):
            self._latest.append(-1)
        self._pending.append((name, group, sim, self._latest[sim]))
        self._latest[sim] = number
        return number

    def _column(self, name: str) -> npt.NDArray[Any]:
        if self._pending:
            rows = self._columns.extend(len(self._pending))
            columns = zip(*self._pending, strict=True)
            for column, values in zip(("name", "group", "sim", "previous"), columns, strict=True):
                self._columns[column][rows] = values
            self._columns["digits"][rows] = [self._all[number][1][0] for number in rows.tolist()]
            self._columns["public"][rows] = [context_id(self.value(number)) for number in rows.tolist()]
            self._pending = []
        return self._columns[name]

    def tenant(self, number: int) -> str:
        """Return whose context it is."""
        return self._all[number][0][0]

    def context(self, number: int) -> Context:
        """Return the dimensions of a context."""
        (_, provider, account), tail = self._all[number]
        return Context(provider, account, *tail)

    def groups(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the group of each context."""
        found: npt.NDArray[np.uint32] = self._column("group")[numbers]
        return found

    def sims(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return the SIM number of each context."""
        found: npt.NDArray[np.uint32] = self._column("sim")[numbers]
        return found

    def owners(self, numbers: Numbers) -> npt.NDArray[np.uint32]:
        """Return a number for each context's tenant."""
        tenants = np.array(self._owner_of_group, np.uint32)
        found: npt.NDArray[np.uint32] = tenants[self.groups(numbers)]
        return found

    def labels(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        """Return for each context the bytes of its SIM's ICCID and of its public id, side by side."""
        sims, ids = self._column("digits")[numbers], self._column("public")[numbers]
        return np.concatenate(
            (sims.view(np.uint8).reshape(-1, SIM_BYTES), ids.view(np.uint8).reshape(-1, ID_BYTES)), axis=1
        )

    def siblings(self, sims: Numbers, hours: U64) -> U64:
        """Return the cell keys of all contexts of these SIMs in these hours, used or not."""
        previous = self._column("previous")
        current = np.array(self._latest, np.int64)[sims]
        found: list[U64] = []
        while len(current):
            found.append(current.astype(np.uint64) << np.uint64(32) | hours)
            current = previous[current]
            going = current >= 0
            current, hours = current[going], hours[going]
        return np.concatenate(found) if found else np.zeros(0, np.uint64)

    def value(self, number: int) -> bytes:
        """Return the dimensions of a context as the read model has them."""
        return context_value(self.context(number))

    def public(self, number: int) -> bytes:
        """Return the id under which the read model has a context."""
        return self._column("public")[number : number + 1].tobytes()

    def publics(self, numbers: Numbers) -> bytes:
        """Return the ids under which the read model has contexts, one after the other."""
        return self._column("public")[numbers].tobytes()

    def untold(self, numbers: Numbers) -> Numbers:
        """Return those that the read model has not been told of."""
        told: Bools = self._column("told")[numbers]
        fresh: Numbers = numbers[~told]
        return fresh

    def tell(self, numbers: Numbers) -> None:
        """Note that the read model knows these."""
        self._column("told")[numbers] = True

    def forget_told(self) -> None:
        """Note that the read model was emptied."""
        self._column("told")[:] = False

    def names(self, numbers: Numbers) -> U64:
        """Return the lasting name of each context."""
        found: U64 = self._column("name")[numbers]
        return found

    def numbers(self, names: U64) -> I64 | None:
        """Return the contexts of lasting names, or `None` if one of them is not known yet."""
        unique, inverse = np.unique(names, return_inverse=True)
        found = [self._by_name.get(name, -1) for name in unique.tolist()]
        return None if -1 in found else np.array(found, np.int64)[inverse]

    def unsaved(self) -> list[tuple[str, bytes]]:
        """Return the changelog records of the contexts that are new since the last call."""
        numbers, self._unsaved = self._unsaved, []
        return list(self._records(self._own - len(numbers), numbers))

    def _records(self, first: int, numbers: list[int]) -> Iterator[tuple[str, bytes]]:
        if not numbers:
            return
        body = [[*self._all[number][0], *self._all[number][1]] for number in numbers]
        value = zstandard.compress(orjson.dumps(body), 3)
        if len(value) > MAX_BYTES and len(numbers) > 1:
            middle = len(numbers) // 2
            yield from self._records(first, numbers[:middle])
            yield from self._records(first + middle, numbers[middle:])
        else:
            yield f"{self._writer}/{first}", value

    def load(self, name: str, value: bytes) -> None:
        """Take in a record of contexts during recovery."""
        writer, _, first = name.partition("/")
        for lasting, fields in enumerate(
            orjson.loads(zstandard.decompress(value)), int(writer) << 32 | int(first)
        ):
            if lasting not in self._by_name:
                tenant, provider, account, sim, endpoint, fleet, tags, *rest = fields
                scope = (tenant, provider, account)
                tail: Tail = (sim, endpoint, fleet, tuple(tags), *rest)
                # Two writers may have met the same context: then it is one number with two names.
                known = self.scope(scope).get(tail)
                if known is None:
                    self._add(scope, tail, lasting)
                else:
                    self._by_name[lasting] = known
